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
    folder: tempfile::TempDir,
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
        format!("{broker}[health]\nlisten = \"{nobody}\"\n[logs]\ndatabase = \"mesh.db\"\n{settings}"),
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
        folder,
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
    for (path, why) in [
        ("brokers/broker1", "refused"),
        ("links", "refused"),
        ("incidents", "refused"),
        ("incidents", "no database"),
        ("incidents/i-1", "no database"),
        ("clients", "mesh.db"),
        ("logs", "mesh.db"),
        ("availability", "mesh.db"),
    ] {
        let answer = get(&format!("{}/api/v1/{path}", page.url));
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.body.contains(why), "{path}: {}", answer.body);
    }
    let state = stream.until(Duration::from_secs(10), |message| message.name == "state");
    let error = state.data["logs"]["error"].as_str().unwrap();
    assert!(error.contains("mesh.db"), "{error}");
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

#[tokio::test(flavor = "multi_thread")]
async fn without_mesh_health_the_incidents_are_those_of_the_database() {
    let page = page("").await;
    let mut stream = Stream::open(&page.url, None).unwrap();
    let (mut writer, _) = mesh_store::Writer::open(&page.folder.path().join("mesh.db"))
        .await
        .unwrap();
    let incident = |number: u32| -> mesh_model::Incident {
        let began = format!("2026-11-23T03:00:{number:02}Z");
        let text = format!(
            r#"{{"id":"i-{number}","kind":"broker","broker":"broker1","from":null,"to":null,"generation":1,"reason":"refused",
            "began_at":"{began}","ended_at":"{began}","phases":[{{"phase":"first_sign","at":"{began}","elapsed_ms":0.0}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    };
    let all: Vec<_> = (1..=5).map(incident).collect();
    writer.store_incidents(&all).await.unwrap();
    // A database that comes later is found.
    stream.until(Duration::from_secs(10), |message| {
        message.data["logs"]["reachable"] == true
    });
    let json = |path: &str| -> serde_json::Value {
        let answer = get(&format!("{}/api/v1/{path}", page.url));
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    };
    let first = json("incidents?limit=3");
    let ids = |page: &serde_json::Value| -> Vec<String> {
        let list = page["incidents"].as_array().unwrap().iter();
        list.map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&first), ["i-5", "i-4", "i-3"]);
    assert_eq!(
        (&first["is_live"], &first["next"]),
        (&false.into(), &"i-3".into())
    );
    let rest = json("incidents?limit=3&after=i-3");
    assert_eq!(
        (ids(&rest), &rest["next"]),
        (vec!["i-2".to_owned(), "i-1".to_owned()], &serde_json::Value::Null)
    );
    assert_eq!(json("incidents/i-2"), serde_json::to_value(&all[1]).unwrap());
    assert_eq!(get(&format!("{}/api/v1/incidents/i-9", page.url)).status, 404);
    assert_eq!(json("availability")["strips"][0]["broker"], "broker1");
    page.end.send(()).unwrap();
    page.task.await.unwrap().unwrap();
}
