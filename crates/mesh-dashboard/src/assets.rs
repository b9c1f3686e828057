//! The files of the page: inside the program, compressed beforehand; or from a folder while somebody works on them.
//!
//! Their addresses hold a hash over all of them, `/assets/HASH/js/main.js`, so browsers may keep them for ever. Only the
//! shell, `index.html`, is asked for again, and it is not sent again if it is the same (`ETag`).

use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// One embedded file.
struct File {
    path: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The hash over all embedded files.
const VERSION: &str = env!("MESH_ASSETS");

/// Never changes under its address.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// May be kept, and must be asked for each time.
const ASK: HeaderValue = HeaderValue::from_static("no-cache");

/// Has the browser ask for the state beside the modules, so that the first picture need not wait for a stream.
const STATE: &str = "<link rel=\"preload\" as=\"fetch\" href=\"/api/v1/status\" crossorigin>\n";

/// What the shell says of the modules inside the program.
static EMBEDDED_PRELOADS: OnceLock<String> = OnceLock::new();

/// Where the files come from.
#[derive(Debug)]
pub struct Assets {
    folder: Option<PathBuf>,
}

impl Assets {
    /// The embedded files, or those of `folder`.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// The shell of the page at `path`, with `status`.
    pub fn shell(&self, path: &str, status: StatusCode, request: &HeaderMap) -> Response {
        let Some(html) = self.text("index.html") else {
            let folder = self.folder.as_deref().unwrap_or(Path::new("")).display();
            let detail = format!("There is no index.html in {folder}.");
            return crate::problem::Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response();
        };
        let base = match &self.folder {
            Some(_) => "/assets/dev".to_owned(),
            None => format!("/assets/{VERSION}"),
        };
        let preload = match &self.folder {
            Some(_) => self.preloads(&base),
            // Reading every module for each page would be half of what a page costs.
            None => EMBEDDED_PRELOADS.get_or_init(|| self.preloads(&base)).clone(),
        };
        // Who has to log in may not have the state.
        let state = if path == "/login" { "" } else { STATE };
        let html = html
            .replace("{{state}}", state)
            .replace("{{preload}}", &preload)
            .replace("{{assets}}", &base);
        let tag = format!("\"{VERSION}-{}\"", html.len());
        let mut response = if status == StatusCode::OK && self.folder.is_none() && has(request, &tag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
            (status, [kind], html).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, ASK);
        if let (None, Ok(tag)) = (&self.folder, HeaderValue::from_str(&tag)) {
            headers.insert(header::ETAG, tag);
        }
        response
    }

    /// The file `path` of version `version`; `None` if there is none.
    pub fn file(&self, version: &str, path: &str, request: &HeaderMap) -> Option<Response> {
        if let Some(folder) = &self.folder {
            let bytes = std::fs::read(folder.join(safe(path)?)).ok()?;
            let mut response = Body::from(bytes).into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, kind(path)?);
            response.headers_mut().insert(header::CACHE_CONTROL, ASK);
            return Some(response);
        }
        // A page of an earlier version asks for files that are gone; a mixture would be worse than nothing.
        if version != VERSION {
            return None;
        }
        let file = FILES.iter().find(|file| file.path == path)?;
        let takes_gzip = request
            .get(header::ACCEPT_ENCODING)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| {
                value
                    .split(',')
                    .any(|coding| coding.trim().split(';').next() == Some("gzip"))
            });
        let tag = format!("\"{VERSION}\"");
        let mut response = if has(request, &tag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let body = if takes_gzip { file.gzip } else { file.plain };
            Body::from(body).into_response()
        };
        let headers = response.headers_mut();
        if takes_gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        headers.insert(header::CONTENT_TYPE, kind(path)?);
        headers.insert(header::CACHE_CONTROL, FOR_EVER);
        headers.insert(header::ETAG, HeaderValue::from_str(&tag).ok()?);
        Some(response)
    }

    fn preloads(&self, base: &str) -> String {
        let links: Vec<String> = self
            .modules()
            .iter()
            .map(|path| format!("<link rel=\"modulepreload\" href=\"{base}/{path}\">"))
            .collect();
        links.join("\n")
    }

    /// The modules of the first page, which the shell names so that they are fetched at once and not one after the
    /// other: what `main.js` imports, and what that imports. What is fetched later is imported by `import()`.
    fn modules(&self) -> Vec<String> {
        let mut found = vec!["js/main.js".to_owned()];
        let mut next = 0;
        while let Some(path) = found.get(next).cloned() {
            next += 1;
            for import in imports(&path, &self.text(&path).unwrap_or_default()) {
                if !found.contains(&import) {
                    found.push(import);
                }
            }
        }
        found
    }

    fn text(&self, path: &str) -> Option<String> {
        match &self.folder {
            Some(folder) => std::fs::read_to_string(folder.join(path)).ok(),
            None => {
                let file = FILES.iter().find(|file| file.path == path)?;
                Some(String::from_utf8_lossy(file.plain).into_owned())
            }
        }
    }
}

/// The paths of what the module `path` with this text imports before it runs.
fn imports(path: &str, text: &str) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let statements = text
        .lines()
        .filter(|line| line.starts_with("import ") || line.starts_with("export "));
    let sources = statements.filter_map(|line| line.split_once("from \"")?.1.split('"').next());
    let resolved = |source: &str| match source.strip_prefix("../") {
        Some(rest) => folder
            .rsplit_once('/')
            .map_or(rest.to_owned(), |(parent, _)| format!("{parent}/{rest}")),
        None => format!("{folder}/{}", source.trim_start_matches("./")),
    };
    sources.map(resolved).collect()
}

/// `path` if it leads nowhere but down.
fn safe(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let down = |part: Component<'_>| matches!(part, Component::Normal(_));
    path.components().all(down).then_some(path)
}

fn has(request: &HeaderMap, tag: &str) -> bool {
    let known = request
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    // A cache on the way may have made the tag a weak one.
    known.is_some_and(|known| {
        known
            .split(',')
            .any(|one| one.trim().trim_start_matches("W/") == tag)
    })
}

fn kind(path: &str) -> Option<HeaderValue> {
    let kind = match path.rsplit_once('.')?.1 {
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    };
    Some(HeaderValue::from_static(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_page_is_small() {
        let modules = Assets::new(None).modules();
        let is_first =
            |path: &str| !path.ends_with(".js") || path == "js/theme.js" || modules.iter().any(|m| m == path);
        let first = FILES.iter().filter(|file| is_first(file.path));
        let bytes: usize = first.map(|file| file.gzip.len()).sum();
        // With their heads and the first data this stays below the 80 KB that the browser tests measure.
        assert!(
            bytes <= 56 * 1024,
            "the files of the first page have {bytes} bytes compressed"
        );
    }

    #[test]
    fn a_folder_is_not_left() {
        for path in ["../secret", "js/../../secret", "/etc/passwd", "./x"] {
            assert_eq!(safe(path), None, "{path}");
        }
        assert!(safe("js/main.js").is_some());
    }

    #[test]
    fn the_shell_names_the_modules_of_the_first_page() {
        let shell = Assets::new(None).text("index.html").unwrap();
        assert!(shell.contains("{{preload}}") && shell.contains("{{assets}}/js/main.js"));
        let modules = Assets::new(None).modules();
        for path in [
            "js/main.js",
            "js/views/overview.js",
            "js/parts/topology.js",
            "js/dom.js",
        ] {
            assert!(
                modules.iter().any(|module| module == path),
                "{path} of {modules:?}"
            );
        }
        assert!(
            modules
                .iter()
                .all(|path| FILES.iter().any(|file| file.path == path)),
            "{modules:?}"
        );
        assert!(
            !modules.iter().any(|path| path == "js/views/logs.js"),
            "it is fetched when somebody goes there"
        );
    }
}
