//! Nginx's `nginx.conf` and `upstream.conf`, and the line by which Nginx tells which plan it runs.

use std::net::SocketAddr;

use mesh_model::{Broker, BrokerId, Plan};
use mesh_runtime::Config;
use minijinja::context;
use serde::Serialize;

use crate::template::{RenderError, plain, render};

/// The highest weight in an upstream. Nginx adds weights up in a signed 64-bit integer, so the sum of a falling
/// series that begins with this stays well below the limit of 9.2 × 10^18.
const MAX_WEIGHT: u64 = 1_000_000_000_000_000_000;

/// The upstream of clients that speak MQTT over TCP, and of those that speak it over WebSockets.
const MQTT: &str = "mqtt";
const WEBSOCKETS: &str = "mqtt_websockets";

/// Where clients come in.
#[derive(Serialize)]
struct Door {
    listen: String,
    tls: bool,
    upstream: &'static str,
}

/// Where they are led to.
#[derive(Serialize)]
struct Upstream {
    name: &'static str,
    primary: String,
    standbys: Vec<Standby>,
}

#[derive(Serialize)]
struct Standby {
    address: String,
    weight: u64,
}

/// Nginx's main file.
///
/// # Errors
///
/// [`RenderError::Path`] if a path cannot stand in the file.
pub fn nginx_conf(config: &Config) -> Result<String, RenderError> {
    let b = &config.balancer;
    let module = b.stream_module.as_ref();
    let doors = [
        (Some(b.listen), false, MQTT),
        (b.tls, true, MQTT),
        (b.websockets, false, WEBSOCKETS),
        (b.websockets_tls, true, WEBSOCKETS),
    ];
    let doors = doors.into_iter().filter_map(|(listen, tls, upstream)| {
        Some(Door {
            listen: listen?.to_string(),
            tls,
            upstream,
        })
    });
    let has_tls = b.tls.or(b.websockets_tls).is_some();
    let tls_file = |key, path: &Option<std::path::PathBuf>| {
        let path = path.as_ref().filter(|_| has_tls);
        path.map(|path| plain(key, path)).transpose()
    };
    render(
        "nginx.conf.j2",
        context! {
            source => config.path.to_string_lossy(),
            balancer => context! {
                dir => plain("balancer.dir", &b.dir)?,
                stream_module => module.map(|path| plain("balancer.stream_module", path)).transpose()?,
                user => b.user,
                certificate => tls_file("balancer.certificate", &b.certificate)?,
                certificate_key => tls_file("balancer.certificate_key", &b.certificate_key)?,
                proxy_bind => b.proxy_bind.map(|ip| ip.to_string()),
                proxy_connect_timeout_ms => u64::try_from(b.proxy_connect_timeout.as_millis()).unwrap_or(u64::MAX),
                proxy_timeout_s => b.proxy_timeout.as_secs(),
                worker_connections => b.worker_connections,
            },
            doors => doors.collect::<Vec<_>>(),
        },
    )
}

/// The files that `nginx.conf` names and that an operator gives: a line of a kind and a path for each, for scripts.
///
/// # Errors
///
/// [`RenderError::Path`] if a path cannot stand in the file.
pub fn files(config: &Config) -> Result<String, RenderError> {
    let b = &config.balancer;
    let all = [
        ("certificate", "balancer.certificate", &b.certificate),
        ("key", "balancer.certificate_key", &b.certificate_key),
    ];
    let has_tls = b.tls.or(b.websockets_tls).is_some();
    let given = all
        .into_iter()
        .filter_map(|(kind, key, path)| Some((kind, key, path.as_ref()?)));
    let lines = given.filter(|_| has_tls);
    lines
        .map(|(kind, key, path)| Ok(format!("{kind} {}\n", plain(key, path)?)))
        .collect()
}

/// Nginx's upstream for `plan`.
///
/// # Errors
///
/// [`RenderError::UnknownBroker`] if the plan names a broker that the configuration does not have; else as
/// [`nginx_conf`].
pub fn upstream_conf(config: &Config, plan: &Plan) -> Result<String, RenderError> {
    let mut upstreams = vec![upstream(config, plan, MQTT, |broker| Some(broker.address))?];
    if config.balancer.has_websockets() {
        upstreams.push(upstream(config, plan, WEBSOCKETS, |broker| broker.websockets)?);
    }
    render(
        "upstream.conf.j2",
        context! {
            plan => context! { generation => plan.generation },
            upstreams,
            balancer => context! {
                dir => plain("balancer.dir", &config.balancer.dir)?,
                readback => config.balancer.readback.to_string(),
                fail_timeout_s => config.balancer.fail_timeout.as_secs(),
            },
            readback => read_back(plan),
        },
    )
}

/// The brokers of `plan` in its order, each at that one of its addresses.
fn upstream(
    config: &Config,
    plan: &Plan,
    name: &'static str,
    at: impl Fn(&Broker) -> Option<SocketAddr>,
) -> Result<Upstream, RenderError> {
    let address = |id: &BrokerId| {
        let address = config.topology.get(id).and_then(&at);
        let address = address.ok_or_else(|| RenderError::UnknownBroker(id.clone()))?;
        Ok::<_, RenderError>(address.to_string())
    };
    let weights = falling_weights(plan.standbys.len());
    let standbys = plan.standbys.iter().zip(weights).map(|(id, weight)| {
        let address = address(id)?;
        Ok(Standby { address, weight })
    });
    Ok(Upstream {
        name,
        primary: address(&plan.primary)?,
        standbys: standbys.collect::<Result<_, RenderError>>()?,
    })
}

/// Weights for `count` backup servers so that Nginx takes them in order.
///
/// Nginx spreads sessions over backups by smooth weighted round robin. With a ratio of r between neighbours, the
/// order holds for about r / 2 connections after two or more brokers died, before the ledger of the dead ones
/// tips over; a new plan starts a new ledger. So the ratio is as large as 64-bit weights allow: 10^9 for three
/// brokers, 10^6 for five, 63 for twelve.
fn falling_weights(count: usize) -> Vec<u64> {
    let steps = u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX);
    let ratio = largest_ratio(steps, 1_000_000_000);
    (0..count)
        .rev()
        .map(|exponent| ratio.pow(u32::try_from(exponent).unwrap_or(0)))
        .collect()
}

/// The largest r up to `limit` with r^`steps` ≤ [`MAX_WEIGHT`].
fn largest_ratio(steps: u32, limit: u64) -> u64 {
    let fits = |ratio: u64| {
        ratio
            .checked_pow(steps)
            .is_some_and(|weight| weight <= MAX_WEIGHT)
    };
    let (mut low, mut high) = (1, limit);
    while low < high {
        let middle = high - (high - low) / 2;
        if fits(middle) {
            low = middle
        } else {
            high = middle - 1
        }
    }
    low
}

/// Why an answer is not one of [`read_back`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the answer of a balancer of this mesh")]
pub struct ReadBackError(pub String);

/// The line that Nginx answers at `balancer.readback` while it runs `plan`.
pub fn read_back(plan: &Plan) -> String {
    let standbys: Vec<&str> = plan.standbys.iter().map(BrokerId::as_str).collect();
    format!(
        "gen={} primary={} standbys={}",
        plan.generation,
        plan.primary,
        standbys.join(",")
    )
}

/// The plan that such a line tells of.
///
/// # Errors
///
/// [`ReadBackError`] if it is none.
pub fn parse_read_back(line: &str) -> Result<Plan, ReadBackError> {
    let parse = || {
        let mut words = line.trim_end().split(' ');
        let generation = words.next()?.strip_prefix("gen=")?.parse().ok()?;
        let primary: BrokerId = words.next()?.strip_prefix("primary=")?.parse().ok()?;
        let standbys = words.next()?.strip_prefix("standbys=")?;
        let standbys = standbys.split(',').filter(|id| !id.is_empty()).map(str::parse);
        let standbys = standbys.collect::<Result<Vec<BrokerId>, _>>().ok()?;
        words
            .next()
            .is_none()
            .then(|| Plan::new(generation, primary, standbys))
    };
    parse().ok_or_else(|| ReadBackError(line.to_owned()))
}

/// The plan whose read-back an `upstream.conf` holds.
pub fn plan_of_upstream(contents: &str) -> Option<Plan> {
    let line = contents
        .lines()
        .find_map(|line| line.trim().strip_prefix("return \""))?;
    let (answer, _) = line.split_once("\\n")?;
    parse_read_back(answer).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> BrokerId {
        text.parse().unwrap()
    }

    #[test]
    fn weights_fall_as_steeply_as_64_bits_allow() {
        assert_eq!(falling_weights(0), Vec::<u64>::new());
        assert_eq!(falling_weights(1), [1]);
        assert_eq!(falling_weights(2), [1_000_000_000, 1]);
        assert_eq!(
            falling_weights(4),
            [10u64.pow(18), 10u64.pow(12), 10u64.pow(6), 1]
        );
        for count in 2..=64 {
            let weights = falling_weights(count);
            assert!(
                weights
                    .iter()
                    .try_fold(0i64, |sum, w| sum.checked_add_unsigned(*w))
                    .is_some()
            );
            assert!(
                count > 40 || weights.windows(2).all(|pair| pair[0] > pair[1]),
                "{count}: {weights:?}"
            );
        }
    }

    #[test]
    fn the_plan_is_found_in_a_rendered_file() {
        let text = "server {\n    listen 127.0.0.1:1;\n    return \"gen=4 primary=b standbys=a,c\\n\";\n}\n";
        assert_eq!(
            plan_of_upstream(text),
            Some(Plan::new(4, id("b"), [id("a"), id("c")]))
        );
        assert_eq!(plan_of_upstream("upstream mqtt {}"), None);
    }

    #[test]
    fn what_nginx_answers_is_the_plan_it_was_given() {
        for plan in [
            Plan::new(42, id("b"), [id("a"), id("c")]),
            Plan::new(0, id("a"), []),
        ] {
            assert_eq!(parse_read_back(&format!("{}\n", read_back(&plan))), Ok(plan));
        }
        for foreign in [
            "",
            "gen=x primary=a standbys=",
            "gen=1 primary=a",
            "HTTP/1.1 400 Bad Request",
        ] {
            assert!(parse_read_back(foreign).is_err(), "{foreign}");
        }
    }
}
