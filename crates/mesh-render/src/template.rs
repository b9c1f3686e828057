//! The templates and the engine that fills them in.

use std::path::Path;
use std::sync::LazyLock;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

/// Why a file cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A path cannot be written into a configuration file.
    #[error(
        "{key}: the path {path:?} has a character that cannot stand in a configuration file (white space, quotes, ; {{ }} or a control character)"
    )]
    Path {
        /// The setting.
        key: &'static str,
        /// The path.
        path: String,
    },
    /// The plan names a broker that the configuration does not have.
    #[error("the plan names {0}, which mesh.toml does not have")]
    UnknownBroker(mesh_model::BrokerId),
    /// A template is broken: a defect of this program.
    #[error("a template is broken")]
    Template(#[from] minijinja::Error),
}

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_keep_trailing_newline(true);
    for (name, source) in [
        (
            "broker.conf.j2",
            include_str!("../../../mosquitto/broker.conf.j2"),
        ),
        (
            "bridge.conf.j2",
            include_str!("../../../mosquitto/bridge.conf.j2"),
        ),
        ("nginx.conf.j2", include_str!("../../../nginx/nginx.conf.j2")),
        (
            "cloud-init.yaml.j2",
            include_str!("../../../deploy/cloud-init.yaml.j2"),
        ),
        (
            "upstream.conf.j2",
            include_str!("../../../nginx/upstream.conf.j2"),
        ),
    ] {
        environment
            .add_template(name, source)
            .expect("the templates are part of this program and parse");
    }
    environment
});

pub(crate) fn render(name: &str, context: impl Serialize) -> Result<String, RenderError> {
    Ok(TEMPLATES.get_template(name)?.render(context)?)
}

/// `path` as it can be written into Mosquitto's and Nginx's files, which both split at white space and have no
/// common way of quoting.
pub(crate) fn plain(key: &'static str, path: &Path) -> Result<String, RenderError> {
    let text = path.to_string_lossy().into_owned();
    let awkward = |c: char| c.is_whitespace() || c.is_control() || "\"';{}#$\\\u{fffd}".contains(c);
    if text.is_empty() || text.contains(awkward) {
        Err(RenderError::Path { key, path: text })
    } else {
        Ok(text)
    }
}

/// Like [`plain`], with `{broker}` replaced by the broker's id.
pub(crate) fn plain_of(
    key: &'static str,
    path: &Path,
    broker: &mesh_model::BrokerId,
) -> Result<String, RenderError> {
    let text = path.to_string_lossy().replace("{broker}", broker.as_str());
    plain(key, Path::new(&text))
}
