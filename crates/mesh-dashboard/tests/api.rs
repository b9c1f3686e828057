//! The API over a real network: every path, what is refused, and the stream.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Answer, Message, Stream, get, post, request};
use mesh_lab::{Fault, Lab, LabOptions, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

async fn lab(settings: &str) -> Lab {
    let options = LabOptions {
        brokers: 3,
        dashboard: true,
        logs: true,
        settings: settings.to_owned(),
        ..LabOptions::default()
    };
    Lab::start(options).await.unwrap()
}

fn kill(process: &str) -> Fault {
    Fault::Kill {
        process: process.to_owned(),
    }
}

fn parsed(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn is_problem(answer: &Answer, status: u16) {
    let problem = parsed(answer);
    assert_eq!(answer.status, status, "{problem}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(problem["status"], status);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.len() > 10, "{problem}");
}

/// A lab whose page knows the state, and which is ready to be broken.
async fn known(settings: &str) -> (Lab, String) {
    let lab = lab(settings).await;
    let url = lab.dashboard_url();
    let known = wait_until("a state from mesh-health", PATIENCE, async || {
        let state = parsed(&get(&format!("{url}/api/v1/status")));
        // A broker that is not in sync yet may not serve, and who drains another one is refused.
        let brokers = state["snapshot"]["brokers"].as_array();
        let is_in_sync = |broker: &Value| broker["retained"]["in_sync"] == true;
        if brokers.is_some_and(|brokers| brokers.iter().all(is_in_sync)) {
            Ok(())
        } else {
            Err(state.to_string())
        }
    });
    known.await.unwrap();
    (lab, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_is_told() {
    let (lab, url) = known("").await;
    let json = |path: &str| -> Value {
        let answer = get(&format!("{url}/api/v1/{path}"));
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        parsed(&answer)
    };
    let state = json("status");
    assert_eq!(state["snapshot"]["brokers"].as_array().unwrap().len(), 3);
    assert_eq!(state["snapshot"]["primary"], "broker1");
    let broker = json("brokers/broker2");
    assert_eq!(broker["broker"]["id"], "broker2");
    let links_in = broker["links_in"].as_array().unwrap();
    assert!(links_in.len() == 2 && links_in.iter().all(|link| link["to"] == "broker2"));
    assert_eq!(broker["links_out"].as_array().unwrap().len(), 2);
    assert_eq!(json("links")["links"].as_array().unwrap().len(), 6);
    let history = json("history");
    let frames = history["at"].as_array().unwrap().len();
    assert!(frames > 0);
    assert_eq!(history["brokers"][0]["health"].as_array().unwrap().len(), frames);
    assert_eq!(json("incidents")["incidents"].as_array().unwrap().len(), 0);
    assert!(json("openapi.json")["paths"].as_object().unwrap().len() >= 10);
    let metrics = get(&format!("{url}/metrics")).body;
    assert!(metrics.contains("\nmesh_dashboard_source_up 1\n"), "{metrics}");
    assert_eq!(get(&format!("{url}/healthz")).status, 200);

    let page = get(&format!("{url}/"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let tag = page.header("etag").unwrap();
    let again = request("GET", &format!("{url}/"), &[("if-none-match", tag)]);
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    let module = page.body.split('"').find(|text| text.ends_with("/js/main.js"));
    let packed = request(
        "GET",
        &format!("{url}{}", module.unwrap()),
        &[("accept-encoding", "gzip")],
    );
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.header("cache-control").unwrap().contains("immutable"));
    assert_eq!(
        get(&format!("{url}/brokers/broker1")).body,
        page.body,
        "every page has the same shell"
    );
    let nowhere = request("GET", &format!("{url}/nowhere"), &[("accept", "text/html")]);
    assert_eq!((nowhere.status, nowhere.body.contains("<main")), (404, true));
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_with_a_problem_and_what_is_right_is_done() {
    let (lab, url) = known("").await;
    let at = |path: &str| format!("{url}{path}");
    for (path, status) in [
        ("/api/v1/brokers/broker9", 404),
        ("/api/v1/brokers/%FF", 400),
        ("/api/v1/incidents/none", 404),
        ("/api/v1/incidents?limit=0", 400),
        ("/api/v1/incidents?limit=many", 400),
        ("/api/v1/incidents?wrong=1", 400),
        ("/api/v1/incidents?after=none", 404),
        ("/api/v1/nothing", 404),
        ("/assets/0123/js/main.js", 404),
    ] {
        is_problem(&get(&at(path)), status);
    }
    let action = ("x-mesh-action", "1");
    is_problem(&request("DELETE", &at("/api/v1/status"), &[action]), 405);
    is_problem(&request("GET", &at("/"), &[("host", "evil.example")]), 421);
    // What changes something comes from the page, or from a program that says that it means it.
    is_problem(&request("POST", &at("/api/v1/failback"), &[]), 403);
    let foreign = [action, ("origin", "http://evil.example")];
    is_problem(&request("POST", &at("/api/v1/failback"), &foreign), 403);
    is_problem(&post(&at("/api/v1/brokers/broker9/drain")), 404);
    is_problem(&post(&at("/api/v1/brokers/Not%20an%20id/enable")), 404);
    is_problem(&post(&at("/api/v1/brokers/broker3/drain?force=perhaps")), 400);
    // broker1 serves already.
    is_problem(&post(&at("/api/v1/failback")), 409);

    let drained = post(&at("/api/v1/brokers/broker3/drain"));
    assert_eq!(
        (drained.status, &parsed(&drained)["admin"]),
        (200, &Value::from("draining"))
    );
    assert_eq!(post(&at("/api/v1/brokers/broker3/enable")).status, 200);

    let journey = parsed(&post(&at("/api/v1/flow")));
    let arrivals = journey["arrivals"].as_array().unwrap();
    assert_eq!(arrivals.len(), 3);
    let arrived = |one: &Value| one["latency_ms"].as_f64().is_some_and(|ms| ms > 0.0);
    assert!(arrivals.iter().all(arrived), "{journey}");
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_tells_what_happens_and_can_be_resumed() {
    let (lab, url) = known("[dashboard]\nmax_streams = 2\n").await;
    let mut stream = Stream::open(&url, None).unwrap();
    let first = stream.next(PATIENCE).unwrap();
    assert_eq!(first.name, "state");

    lab.fault(&kill("broker1")).await.unwrap();
    let dead = stream.until(PATIENCE, |message| message.data["event"]["name"] == "broker.dead");
    assert_eq!(dead.data["event"]["broker"], "broker1");
    let switched = stream.until(PATIENCE, |message| {
        message.data["snapshot"]["primary"] == "broker2" && !message.data["incident"].is_null()
    });
    assert_eq!(switched.data["incident"]["broker"], "broker1");

    // States come at most four times a second, and time is told where nothing happens.
    let began = Instant::now();
    let mut states = 0_u32;
    stream.until(PATIENCE, |message| {
        states += u32::from(message.name == "state");
        message.name == "tick"
    });
    let most = 4.0 * began.elapsed().as_secs_f64() + 1.0;
    assert!(
        f64::from(states) <= most,
        "{states} states in {:?}",
        began.elapsed()
    );

    // Who comes back is told what it missed; who comes from another run begins anew.
    let mut resumed = Stream::open(&url, Some(&first.id)).unwrap();
    let missed = resumed.until(PATIENCE, |message| message.data["event"]["name"] == "broker.dead");
    assert_eq!(missed.id, dead.id);
    resumed.until(PATIENCE, |message| message.name == "state");
    is_problem(&get(&format!("{url}/api/v1/events")), 503);
    drop(resumed);
    let free = wait_until("a place for a stream", PATIENCE, async || {
        Stream::open(&url, Some("0.7")).map_err(|answer| answer.body)
    });
    assert_eq!(free.await.unwrap().next(PATIENCE).unwrap().name, "reset");

    // A page that dies is there again soon, and knows what mesh-health knows.
    let incident = switched.data["incident"]["id"].as_str().unwrap();
    lab.fault(&kill("mesh-dashboard")).await.unwrap();
    let path = format!("{url}/api/v1/incidents/{incident}?format=markdown");
    let back = wait_until("the page is back", PATIENCE, async || {
        let answer = get(&path);
        if answer.status == 200 {
            Ok(answer.body)
        } else {
            Err(answer.body)
        }
    });
    let report = back.await.unwrap();
    assert!(report.contains("| confirmed |"), "{report}");
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_mesh_health_tells_before_it_is_heard_is_not_missed() {
    let (lab, url) = known("").await;
    let mut stream = Stream::open(&url, None).unwrap();
    assert_eq!(stream.next(PATIENCE).unwrap().name, "state");
    lab.fault(&kill("mesh-health")).await.unwrap();
    // The new one finds that at once, and the page listens again half a second later.
    lab.fault(&kill("broker3")).await.unwrap();
    stream.until(PATIENCE, |message| {
        message.data["event"]["name"] == "broker.dead" && message.data["event"]["broker"] == "broker3"
    });
    lab.stop().await.unwrap();
}

/// Has a client with this id connect to the first broker and leave.
fn visit(lab: &Lab, client_id: &str) {
    let broker = lab.broker(&"broker1".parse().unwrap());
    let done = Command::new("mosquitto_pub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port().to_string(),
            "-i",
            client_id,
            "-t",
            "x",
            "-n",
        ])
        .status();
    assert!(done.unwrap().success());
}

/// The ids of the lines in a `logs` message that are about this client.
fn about(message: &Message, client_id: &str) -> Vec<String> {
    let rows = message.data["rows"].as_array().into_iter().flatten();
    let own = rows.filter(|row| row["client_id"] == client_id);
    own.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_are_followed_in_the_one_stream_and_none_is_lost_when_it_breaks() {
    let (lab, url) = known("").await;
    let parameters = "?follow=event:client.connected+client:one&follow=event:client.connected+client:two";
    // Where lines begin must be known before any is written.
    let there = wait_until("the database", PATIENCE, async || {
        let logs = parsed(&get(&format!("{url}/api/v1/status")))["logs"].clone();
        if logs["reachable"] == true {
            Ok(())
        } else {
            Err(logs.to_string())
        }
    });
    there.await.unwrap();
    let mut stream = Stream::follow(&url, parameters, None).unwrap();
    stream.until(PATIENCE, |message| message.name == "state");
    visit(&lab, "one");
    let has_lines = |message: &Message| {
        message.data["rows"]
            .as_array()
            .is_some_and(|rows| !rows.is_empty())
    };
    let first = stream.until(PATIENCE, has_lines);
    assert_eq!(first.data["q"], "event:client.connected client:one");
    assert_eq!(about(&first, "one").len(), 1);
    visit(&lab, "two");
    let second = stream.until(PATIENCE, has_lines);
    assert_eq!(second.data["q"], "event:client.connected client:two");
    let last = stream.until(PATIENCE, |message| message.name == "state").id;
    drop(stream);

    // Nobody follows while these lines come.
    visit(&lab, "one");
    let path = format!("{url}/api/v1/logs?q=event:client.connected+client:one");
    let stored = wait_until("the line is stored", PATIENCE, async || {
        let page = parsed(&get(&path));
        if page["rows"].as_array().unwrap().len() == 2 {
            Ok(())
        } else {
            Err(page.to_string())
        }
    });
    stored.await.unwrap();
    let by_header = Stream::follow(&url, parameters, Some(&last));
    let by_address = Stream::follow(&url, &format!("{parameters}&after={last}"), None);
    for resumed in [by_header, by_address] {
        let missed = resumed.unwrap().until(PATIENCE, has_lines);
        assert_eq!(about(&missed, "one").len(), 1);
        assert_ne!(
            about(&missed, "one"),
            about(&first, "one"),
            "what was told is not told again"
        );
    }
    is_problem(&get(&format!("{url}/api/v1/events?follow=level%3E%3Dloud")), 400);
    is_problem(&get(&format!("{url}/api/v1/events?q=x")), 400);
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_lines_is_told_in_batches_and_what_is_left_out_is_counted() {
    let (lab, url) = known("").await;
    let mut stream = Stream::follow(&url, "?follow=flood", None).unwrap();
    stream.until(PATIENCE, |message| message.data["logs"]["reachable"] == true);
    let total = 20_000;
    let text: String = (0..total).map(|n| format!("flood line {n}\n")).collect();
    let log = lab.log_dir("nginx").join("nginx.log");
    let mut file = std::fs::OpenOptions::new().append(true).open(log).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let (mut told, mut left_out, mut batches) = (0, 0, 0_u32);
    let began = Instant::now();
    while told + left_out < total {
        let message = stream.until(PATIENCE, |message| {
            ["logs", "gap"].contains(&message.name.as_str())
        });
        assert_eq!(message.data["q"], "flood");
        left_out += message.data["missed"].as_u64().unwrap_or(0);
        let rows = message.data["rows"].as_array().map_or(0, Vec::len);
        assert!(rows <= 200, "{rows} lines at once");
        told += rows as u64;
        batches += u32::from(rows > 0);
    }
    assert_eq!(told + left_out, total, "every line is told or counted");
    assert!(left_out > 0 && f64::from(batches) <= 4.0 * began.elapsed().as_secs_f64() + 1.0);
    lab.stop().await.unwrap();
}
