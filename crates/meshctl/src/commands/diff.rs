//! `meshctl diff`: the topics on which two brokers retain different values, read from both as a client would.
//!
//! It does not believe what the brokers say of themselves: every value is read and compared, with all its
//! properties but what is left of its expiry. One broker's values are kept as fingerprints (some hundred bytes a
//! topic), the other's are compared as they come. What differs is read once more before it is told, since a value
//! that was just written may be on its way.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use mesh_model::{BrokerId, names};
use mesh_runtime::Config;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{PingReq, Publish};
use mesh_runtime::mqtt::{self, Connection, Identity, Packet};
use mesh_runtime::secrets::Secrets;
use serde_json::{Value as Json, json};

use crate::find::NetworkArgs;

/// Flags of `meshctl diff`.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// A broker by its id, or where it takes MQTT connections
    #[arg(value_name = "BROKER")]
    one: String,

    /// The broker to compare it with
    #[arg(value_name = "BROKER")]
    other: String,

    /// Compare only what matches this; may be given several times
    #[arg(long, value_name = "TOPIC-FILTER", default_value = "#")]
    filter: Vec<String>,

    #[command(flatten)]
    network: NetworkArgs,

    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

/// How long a broker may say nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause before what differs is looked at again: more than a message needs from one broker to the other.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// So many differences are looked at again; of more, some on their way do not matter.
const MOST_LOOKED_AT_AGAIN: usize = 10_000;

/// Topics in one SUBSCRIBE.
const SLICE: usize = 100;

/// What is kept of a retained value.
#[derive(Debug)]
struct Value {
    /// Of payload and properties, but for stamps.
    fingerprint: u64,
    /// Of the payload.
    bytes: usize,
    /// The stamp of the mesh.
    stamp: Option<Box<str>>,
}

impl PartialEq for Value {
    /// How a value came to a broker is told by the flags of its stamp, and by earlier stamps, and does not count.
    fn eq(&self, other: &Self) -> bool {
        let written = |value: &Self| {
            value
                .stamp
                .as_deref()
                .map(|stamp| Written::read(stamp).ok_or(stamp.to_owned()))
        };
        self.fingerprint == other.fingerprint && written(self) == written(other)
    }
}

impl Value {
    fn of(message: &Publish) -> Self {
        let mut hasher = DefaultHasher::new();
        message.payload.hash(&mut hasher);
        let mut stamp = None;
        if let Some(properties) = &message.properties {
            properties.payload_format_indicator.hash(&mut hasher);
            properties.content_type.hash(&mut hasher);
            properties.response_topic.hash(&mut hasher);
            properties.correlation_data.hash(&mut hasher);
            let is_stamp = |property: &&(String, String)| property.0 == names::STAMP_PROPERTY;
            for property in properties
                .user_properties
                .iter()
                .filter(|property| !is_stamp(property))
            {
                property.hash(&mut hasher);
            }
            stamp = properties.user_properties.iter().rfind(is_stamp);
        }
        Self {
            fingerprint: hasher.finish(),
            bytes: message.payload.len(),
            stamp: stamp.map(|(_, stamp)| stamp.as_str().into()),
        }
    }

    fn json(&self) -> Json {
        json!({ "bytes": self.bytes, "stamp": self.stamp })
    }
}

/// Topics whose values differ, in order, with the values of both.
type Differences = BTreeMap<String, [Option<Value>; 2]>;

/// Prints the differences. The exit code is 1 if there are any.
pub async fn run(args: DiffArgs) -> anyhow::Result<ExitCode> {
    let config = args.network.load()?;
    let addresses = args.network.brokers(&config);
    let secrets = Secrets::load(&config.security.secrets_dir)?;
    let most = usize::try_from(config.mosquitto.max_queued_messages).unwrap_or(usize::MAX);
    let reader = |name: &str| -> anyhow::Result<Reader> {
        Ok(Reader {
            name: name.to_owned(),
            address: find(&config, &addresses, name)?,
            password: secrets.health.clone(),
            most,
        })
    };
    let readers = [reader(&args.one)?, reader(&args.other)?];
    let mut all = Differences::new();
    for filter in &args.filter {
        all.extend(compare(&readers, &[filter.as_str()]).await?);
    }
    if !all.is_empty() && all.len() <= MOST_LOOKED_AT_AGAIN {
        tokio::time::sleep(SECOND_LOOK).await;
        let topics: Vec<&str> = all.keys().map(String::as_str).collect();
        let mut confirmed = Differences::new();
        for slice in topics.chunks(SLICE) {
            confirmed.extend(compare(&readers, slice).await?);
        }
        all = confirmed;
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    for (topic, values) in &all {
        if args.json {
            writeln!(out, "{}", json_line(&readers, topic, values))?;
        } else {
            writeln!(out, "{}", line(&readers, topic, values))?;
        }
    }
    out.flush()?;
    Ok(if all.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where the broker `name` takes connections. `addresses` are those of the brokers, in order.
fn find(config: &Config, addresses: &[SocketAddr], name: &str) -> anyhow::Result<SocketAddr> {
    let id = name.parse::<BrokerId>().ok();
    if let Some(place) = id.and_then(|id| config.topology.priority(&id)) {
        return Ok(addresses[place]);
    }
    let known: Vec<&str> = config.topology.ids().map(BrokerId::as_str).collect();
    name.parse().with_context(|| {
        let known = known.join(", ");
        format!("{name:?} is no broker of this network ({known}) and no address like 192.168.100.10:1883")
    })
}

async fn compare(readers: &[Reader; 2], filters: &[&str]) -> anyhow::Result<Differences> {
    let mut first: HashMap<String, Value> = HashMap::new();
    readers[0]
        .read(filters, |topic, value| drop(first.insert(topic, value)))
        .await?;
    let mut differ = Differences::new();
    let second = |topic: String, value: Value| match first.remove(&topic) {
        Some(same) if same == value => {}
        before => drop(differ.insert(topic, [before, Some(value)])),
    };
    readers[1].read(filters, second).await?;
    differ.extend(
        first
            .into_iter()
            .map(|(topic, value)| (topic, [Some(value), None])),
    );
    Ok(differ)
}

/// One of the two brokers.
struct Reader {
    name: String,
    address: SocketAddr,
    password: String,
    /// With so many messages at a time the broker may have dropped some.
    most: usize,
}

impl Reader {
    /// Reads everything that is retained and matches one of `filters`, in the broker's order.
    async fn read(&self, filters: &[&str], take: impl FnMut(String, Value)) -> anyhow::Result<()> {
        let about = || format!("cannot read what {} retains", self.name);
        let count = self.read_all(filters, take).await.with_context(about)?;
        if count >= self.most {
            bail!(
                "{} retains {count} values or more below {}, and drops what is above mosquitto.max_queued_messages; \
                 read less at a time with --filter",
                self.name,
                filters.join(", ")
            );
        }
        Ok(())
    }

    async fn read_all(&self, filters: &[&str], mut take: impl FnMut(String, Value)) -> anyhow::Result<usize> {
        let identity = Identity {
            client_id: format!("{}diff.{}", names::CLIENT_ID_PREFIX, std::process::id()),
            login: Some((names::HEALTH_USER.to_owned(), self.password.clone())),
            keep_alive_s: 0,
        };
        let opened = tokio::time::timeout(PATIENCE, Connection::open(self.address, &identity)).await;
        let (mut connection, _) = opened.context("no answer")??;
        connection.queue(&mqtt::subscribe(filters, QoS::AtMostOnce))?;
        // Whatever is retained comes before the answer to this.
        connection.send(&Packet::PingReq(PingReq)).await?;
        let mut count = 0;
        loop {
            match tokio::time::timeout(PATIENCE, connection.receive())
                .await
                .context("no answer")??
            {
                Packet::Publish(message) if message.retain => {
                    count += 1;
                    let topic = String::from_utf8_lossy(&message.topic).into_owned();
                    take(topic, Value::of(&message));
                }
                Packet::PingResp(_) => return Ok(count),
                _ => {}
            }
        }
    }
}

fn json_line(readers: &[Reader; 2], topic: &str, values: &[Option<Value>; 2]) -> Json {
    let [one, other] = values.each_ref().map(|value| value.as_ref().map(Value::json));
    json!({ "topic": topic, "values": { readers[0].name.as_str(): one, readers[1].name.as_str(): other } })
}

fn line(readers: &[Reader; 2], topic: &str, values: &[Option<Value>; 2]) -> String {
    let told = |reader: &Reader, value: &Option<Value>| match value {
        Some(value) => format!(
            "{}: {} bytes{}",
            reader.name,
            value.bytes,
            written(value.stamp.as_deref())
        ),
        None => format!("{}: nothing", reader.name),
    };
    let [one, other] = [told(&readers[0], &values[0]), told(&readers[1], &values[1])];
    // A topic is whatever a client has made up.
    format!("{}  {one}; {other}", topic.escape_debug())
}

/// Where and when a value was written.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    origin: String,
    epoch: u64,
    number: u64,
    /// Milliseconds since 1970.
    at_ms: u64,
    /// Of messages with the same time.
    counter: u64,
}

impl Written {
    /// From a stamp: version, origin, epoch, number, time, flags. Values from before an upgrade have version 1.
    fn read(stamp: &str) -> Option<Self> {
        let words: Vec<&str> = stamp.split(' ').collect();
        let (origin, epoch, number, at_ms, counter) = match words[..] {
            ["2", origin, epoch, number, time, _] => {
                let (since, counter) = time.split_once('.').unwrap_or((time, "0"));
                let epoch = base_64(epoch)?;
                let at_ms = epoch.wrapping_add(base_64(since)?);
                (origin, epoch, base_64(number)?, at_ms, base_64(counter)?)
            }
            ["1", origin, epoch, number, time, _] => {
                let hexadecimal = |word| u64::from_str_radix(word, 16).ok();
                let time = hexadecimal(time)?;
                (
                    origin,
                    hexadecimal(epoch)?,
                    hexadecimal(number)?,
                    time >> 16,
                    time & 0xffff,
                )
            }
            _ => return None,
        };
        let origin = origin.to_owned();
        Some(Self {
            origin,
            epoch,
            number,
            at_ms,
            counter,
        })
    }
}

/// A number with the digits that stamps have.
fn base_64(word: &str) -> Option<u64> {
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
    word.bytes().try_fold(0u64, |number, byte| {
        let digit = digits.iter().position(|digit| *digit == byte)?;
        number.checked_mul(64)?.checked_add(digit as u64)
    })
}

/// Says where and when a value with this stamp was written.
fn written(stamp: Option<&str>) -> String {
    let read = |stamp: &str| {
        let written = Written::read(stamp)?;
        let at = Timestamp::from_millisecond(i64::try_from(written.at_ms).ok()?).ok()?;
        let origin = written.origin.escape_debug();
        Some(format!(", written at {origin} {}", at.strftime("%F %T%.3f")))
    };
    stamp.and_then(read).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_where_and_when() {
        // Milliseconds since 1970, and from the epoch of the second one.
        let stamps = [
            format!(
                "1 broker2 10000000000 2a {:x} r1",
                (1_763_884_800_123_u64 << 16) + 3
            ),
            "2 broker2 G000000 g 9glkXXx.3 r1".to_owned(),
        ];
        for stamp in &stamps {
            assert_eq!(
                written(Some(stamp)),
                ", written at broker2 2025-11-23 08:00:00.123"
            );
        }
        let value = |stamp: &str| Value {
            fingerprint: 1,
            bytes: 1,
            stamp: Some(stamp.into()),
        };
        assert_eq!(value(&stamps[0]), value(&stamps[1]));
        assert_eq!(value(&stamps[0]), value(&stamps[0].replace("r1", "rs1")));
        assert_ne!(value(&stamps[0]), value("2 broker2 G000000 h 9glkXXx.3 r1"));
        for unread in [
            "",
            "1 broker2",
            "1 broker2 a b zz r1",
            "2 broker2 a b ? r1",
            "3 broker2 a b c r1",
        ] {
            assert_eq!(written(Some(unread)), "");
        }
    }
}
