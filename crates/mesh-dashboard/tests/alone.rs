//! The page without a network: mesh-health is away, and somebody must log in.

mod common;

use std::time::Duration;

use common::{Stream, get, request, with_body};
use mesh_runtime::Config;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const TOKEN: &str = "0123456789abcdef0123";

struct Page {
    url: String,
    end: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
    _folder: tempfile::TempDir,
}

/// A page whose mesh-health is a port on which nobody listens.
async fn page(settings: &str) -> Page {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), TOKEN).unwrap();
    let path = folder.path().join("mesh.toml");
    let broker = "[[broker]]\nid = \"broker1\"\naddress = \"127.0.0.1:1\"\n";
    std::fs::write(
        &path,
        format!("{broker}[health]\nlisten = \"{nobody}\"\n{settings}"),
    )
    .unwrap();
    let config = Config::load(&path, [], &[]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (end, ended) = oneshot::channel();
    let task = tokio::spawn(async move {
        let stop = async { drop(ended.await) };
        mesh_dashboard::run(&config, None, listener, stop).await
    });
    Page {
        url,
        end,
        task,
        _folder: folder,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_mesh_health_it_says_so_and_ends_when_asked() {
    let page = page("").await;
    let mut stream = Stream::open(&page.url, None).unwrap();
    let state = stream.until(Duration::from_secs(10), |message| {
        message.data["health"]["error"]
            .as_str()
            .is_some_and(|error| error.contains("refused"))
    });
    assert!(
        state.data["snapshot"].is_null() && state.data["incident"].is_null(),
        "unknown is null"
    );
    assert_eq!(get(&format!("{}/healthz", page.url)).status, 200);
    for path in ["brokers/broker1", "links", "incidents"] {
        let answer = get(&format!("{}/api/v1/{path}", page.url));
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.body.contains("refused"), "{}", answer.body);
    }
    page.end.send(()).unwrap();
    // An open stream must not hold up the end.
    page.task.await.unwrap().unwrap();
    while stream.next(Duration::from_secs(10)).is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_nobody_gets_in_without_it() {
    let page = page("[dashboard]\ntoken_file = \"token\"\n").await;
    let at = |path: &str| format!("{}{path}", page.url);
    for path in ["/", "/incidents", "/flow"] {
        let answer = request("GET", &at(path), &[]);
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some("/login")),
            "{path}"
        );
    }
    for path in [
        "/api/v1/status",
        "/api/v1/events",
        "/api/v1/openapi.json",
        "/metrics",
    ] {
        assert_eq!(get(&at(path)).status, 401, "{path}");
    }
    assert_eq!(get(&at("/login")).status, 200);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let wrong = with_body("POST", &at("/login"), &[form], "token=wrong");
    assert_eq!(
        (wrong.status, wrong.header("location")),
        (303, Some("/login?wrong"))
    );
    let foreign = with_body(
        "POST",
        &at("/login"),
        &[form, ("origin", "http://evil.example")],
        "token=x",
    );
    assert_eq!(foreign.status, 403);

    let right = with_body("POST", &at("/login"), &[form], &format!("token={TOKEN}"));
    let cookie = right.header("set-cookie").unwrap();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let session = ("cookie", cookie.split(';').next().unwrap());
    assert_eq!(request("GET", &at("/api/v1/status"), &[session]).status, 200);
    assert_eq!(request("GET", &at("/"), &[session]).status, 200);
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(
        request("GET", &at("/metrics"), &[("authorization", &bearer)]).status,
        200
    );
    page.end.send(()).unwrap();
    page.task.await.unwrap().unwrap();
}
