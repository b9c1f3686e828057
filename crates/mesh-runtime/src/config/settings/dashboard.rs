//! `[dashboard]`: where the page is served, and to whom.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::config::reader::Reader;

/// `[dashboard]`: the page.
#[derive(Debug, Clone)]
pub struct Dashboard {
    /// Where the page is served.
    pub listen: SocketAddr,
    /// The file with the token that a login asks for; without one everybody who reaches `listen` is let in.
    pub token_file: Option<PathBuf>,
    /// Names, beside the address itself, by which browsers may call the page.
    pub hosts: Vec<String>,
    /// Event streams at a time.
    pub max_streams: u64,
}

/// Reads the section.
pub(super) fn read(reader: &mut Reader) -> Dashboard {
    let mut s = reader.section("dashboard");
    let dashboard = Dashboard {
        listen: s.address("listen", ([127, 0, 0, 1], 3000).into(), "where the page is served"),
        token_file: s.optional_path(
            "token_file",
            "file with the token that a login asks for, 16 characters or more; needed where `listen` is not loopback",
        ),
        hosts: s
            .optional_parsed::<Hosts>(
                "hosts",
                "names separated by commas, e.g. \"mesh.example.org\"",
                "further names by which browsers may call the page; others are refused, so that no foreign name can \
                 be made to lead here",
            )
            .map(|hosts| hosts.0)
            .unwrap_or_default(),
        max_streams: s.number("max_streams", 64, 1..=100_000, "event streams at a time"),
    };
    if !dashboard.listen.ip().is_loopback() && dashboard.token_file.is_none() {
        s.problem(
            "token_file",
            format!("must be given, since {} is not loopback", dashboard.listen),
        );
    }
    dashboard
}

/// Host names, without ports.
struct Hosts(Vec<String>);

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        let name = |name: &str| {
            let name = name.trim();
            if !name.is_empty() && name.len() <= 253 && name.chars().all(allowed) {
                Ok(name.to_ascii_lowercase())
            } else {
                Err(format!("{name:?} is not a host name; write names without ports"))
            }
        };
        text.split(',').map(name).collect::<Result<_, _>>().map(Self)
    }
}
