//! Where the programs are that a lab runs, and one clear sentence for each that is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::LabError;
use crate::options::LabOptions;

/// The programs and libraries of a lab.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) mosquitto: PathBuf,
    pub(crate) plugin: Option<PathBuf>,
    pub(crate) nginx: Option<Nginx>,
    pub(crate) mesh_health: Option<PathBuf>,
    pub(crate) mesh_dashboard: Option<PathBuf>,
    pub(crate) mesh_logs: Option<PathBuf>,
}

/// Nginx as it is installed here.
#[derive(Debug)]
pub(crate) struct Nginx {
    pub(crate) program: PathBuf,
    /// Its stream module where that is a file of its own.
    pub(crate) stream_module: Option<PathBuf>,
    /// Whether it can be told (`-e`, since 1.19.5) to write nothing into the system's log folder.
    pub(crate) takes_error_log: bool,
}

/// Names the broker's program.
const MOSQUITTO: &str = "MESH_MOSQUITTO";

/// Folders of daemons that are not in the `PATH` of every user.
const SYSTEM_FOLDERS: [&str; 5] = [
    "/usr/sbin",
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
    "/usr/local/opt/mosquitto/sbin",
    "/opt/homebrew/bin",
];

/// Finds what the lab needs. Where the plugin is not needed, it is named all the same if it is here.
pub(crate) fn find(options: &LabOptions) -> Result<Programs, LabError> {
    let needs_plugin = options.broker_conf.is_none();
    let extension = if cfg!(target_os = "macos") { "dylib" } else { "so" };
    let library = format!("libmesh_plugin.{extension}");
    Ok(Programs {
        mosquitto: match &options.mosquitto {
            Some(program) => program.clone(),
            None => mosquitto()?,
        },
        plugin: match own(&library) {
            Err(missing) if needs_plugin => return Err(missing),
            found => found.ok(),
        },
        nginx: options.balancer.then(nginx).transpose()?,
        mesh_health: options.health.then(|| own("mesh-health")).transpose()?,
        mesh_logs: options.logs.then(|| own("mesh-logs")).transpose()?,
        mesh_dashboard: options.dashboard.then(|| own("mesh-dashboard")).transpose()?,
    })
}

/// The broker's program: the one that `MESH_MOSQUITTO` names, so that everything can be tried with another version
/// (`deploy/fetch-mosquitto.sh` gets one), else the installed one.
///
/// # Errors
///
/// [`LabError::Missing`], with what to do.
pub fn mosquitto() -> Result<PathBuf, LabError> {
    let Some(named) = std::env::var_os(MOSQUITTO).filter(|named| !named.is_empty()) else {
        let remedy = "install it: `apt install mosquitto` or `brew install mosquitto`";
        return system("mosquitto", remedy);
    };
    let program = std::path::absolute(&named).map_err(LabError::io("find the current folder"))?;
    if is_executable(&program) {
        return Ok(program);
    }
    Err(LabError::Missing {
        what: program.display().to_string(),
        looked: MOSQUITTO.to_owned(),
        remedy: "name a program in it, or leave it empty for the installed one".to_owned(),
    })
}

/// A program of this project: it lies beside the program that runs, or, if that is a test, one folder up.
///
/// # Errors
///
/// [`LabError::Missing`], with what to do.
pub fn own(name: &str) -> Result<PathBuf, LabError> {
    let program = std::env::current_exe().map_err(LabError::io("tell where this program is"))?;
    let beside = program.parent().unwrap_or(Path::new("/"));
    let mut folders = vec![beside];
    if beside.ends_with("deps") || beside.ends_with("examples") {
        folders.extend(beside.parent());
    }
    // A test's own folder may hold a copy of an earlier build, so the folder of the real programs comes first.
    folders.reverse();
    let found = folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| LabError::Missing {
        what: name.to_owned(),
        looked: list(folders.iter().copied()),
        remedy: "build it: `cargo build --workspace`".to_owned(),
    })
}

/// A program of the operating system's packages; `remedy` says what to do if it is missing.
///
/// # Errors
///
/// [`LabError::Missing`], with what to do.
pub fn system(name: &str, remedy: &str) -> Result<PathBuf, LabError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(SYSTEM_FOLDERS.map(PathBuf::from));
    let found = folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| is_executable(path));
    found.ok_or_else(|| LabError::Missing {
        what: name.to_owned(),
        looked: "PATH and the usual sbin folders".to_owned(),
        remedy: remedy.to_owned(),
    })
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn nginx() -> Result<Nginx, LabError> {
    let remedy = "install it: `apt install nginx-light libnginx-mod-stream` or `brew install nginx`";
    let program = system("nginx", remedy)?;
    let output = Command::new(&program).arg("-V").output();
    let output = output.map_err(LabError::io(format!("run {} -V", program.display())))?;
    let about = String::from_utf8_lossy(&output.stderr);
    let stream_module = match stream(&about) {
        Stream::BuiltIn => None,
        Stream::Absent => return Err(no_stream("its `nginx -V`")),
        Stream::Module(folder) => Some(find_module(folder)?),
    };
    Ok(Nginx {
        program,
        stream_module,
        takes_error_log: version(&about) >= Some((1, 19, 5)),
    })
}

fn find_module(built_for: Option<&str>) -> Result<PathBuf, LabError> {
    let mut folders: Vec<&Path> = built_for.into_iter().map(Path::new).collect();
    folders.extend(["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"].map(Path::new));
    let found = folders
        .iter()
        .map(|folder| folder.join("ngx_stream_module.so"))
        .find(|path| path.is_file());
    found.ok_or_else(|| no_stream(&list(folders.into_iter())))
}

fn no_stream(looked: &str) -> LabError {
    LabError::Missing {
        what: "Nginx's stream module".to_owned(),
        looked: looked.to_owned(),
        remedy: "install it: `apt install libnginx-mod-stream`".to_owned(),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Stream<'a> {
    BuiltIn,
    Module(Option<&'a str>),
    Absent,
}

/// What `nginx -V` says of the stream module.
fn stream(about: &str) -> Stream<'_> {
    let mut words = about.split_whitespace();
    if words.clone().any(|word| word == "--with-stream") {
        Stream::BuiltIn
    } else if words.clone().any(|word| word == "--with-stream=dynamic") {
        Stream::Module(words.find_map(|word| word.strip_prefix("--modules-path=")))
    } else {
        Stream::Absent
    }
}

/// The version in `nginx -V`.
fn version(about: &str) -> Option<(u32, u32, u32)> {
    let text = about.lines().next()?.split_once("nginx/")?.1;
    let text = text.split_whitespace().next()?;
    let mut numbers = text.split('.').map(str::parse);
    Some((
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
    ))
}

fn list<'a>(folders: impl Iterator<Item = &'a Path>) -> String {
    folders
        .map(|folder| folder.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_module_is_told_from_nginxs_own_words() {
        let debian = "nginx version: nginx/1.22.1\nconfigure arguments: --modules-path=/usr/lib/nginx/modules \
                      --with-stream=dynamic --with-stream_ssl_module";
        assert_eq!(stream(debian), Stream::Module(Some("/usr/lib/nginx/modules")));
        assert_eq!(version(debian), Some((1, 22, 1)));
        let brew = "nginx version: nginx/1.27.3\nconfigure arguments: --with-stream --with-stream_ssl_module";
        assert_eq!(stream(brew), Stream::BuiltIn);
        let ubuntu = "nginx version: nginx/1.18.0 (Ubuntu)\nconfigure arguments: --with-stream_ssl_module";
        assert_eq!(stream(ubuntu), Stream::Absent);
        assert!(version(ubuntu) < Some((1, 19, 5)));
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let message = own("no-such-program").unwrap_err().to_string();
        assert!(message.contains("no-such-program is missing"), "{message}");
        assert!(message.contains("cargo build --workspace"), "{message}");
        assert!(system("no-such-program", "install it").is_err());
    }
}
