//! The checks: each says in words what a client sees, and nothing that differs from run to run.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use mesh_runtime::mqtt::Version;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{
    Connect, Disconnect, DisconnectReasonCode, Filter, LastWill, LastWillProperties, Packet, Publish,
    PublishProperties, RetainForwardRule,
};
use tokio::time::{Instant, sleep, timeout};

use super::super::ground::Door;
use super::client::{Client, Opening, message, message_with, payloads};

type Seen<'a> = Pin<Box<dyn Future<Output = anyhow::Result<String>> + Send + 'a>>;

/// What is done to the broker behind a door.
type Check = for<'a> fn(&'a Door) -> Seen<'a>;

/// A name, and what is done.
pub(super) const CHECKS: [(&str, Check); 19] = [
    ("connect with MQTT 3.1.1", |at| Box::pin(connect_311(at))),
    ("connect without a client id", |at| Box::pin(assigned_id(at))),
    ("limits told in CONNACK", |at| Box::pin(limits(at))),
    ("session taken over", |at| Box::pin(taken_over(at))),
    ("keep-alive", |at| Box::pin(keep_alive(at))),
    ("will", |at| Box::pin(will(at))),
    ("will delay", |at| Box::pin(will_delay(at))),
    ("retained: set, show, clear", |at| Box::pin(retained(at))),
    ("retained: handling, as published", |at| {
        Box::pin(retain_handling(at))
    }),
    ("shared subscription", |at| Box::pin(shared(at))),
    ("topic alias", |at| Box::pin(topic_alias(at))),
    ("flow control", |at| Box::pin(flow_control(at))),
    ("maximum packet size", |at| Box::pin(max_packet_size(at))),
    ("session expiry", |at| Box::pin(session_expiry(at))),
    ("message expiry", |at| Box::pin(message_expiry(at))),
    ("request and response", |at| Box::pin(request_response(at))),
    ("user properties", |at| Box::pin(user_properties(at))),
    ("subscription options", |at| Box::pin(options(at))),
    ("publish without a subscriber", |at| Box::pin(nobody(at))),
];

/// What has to be over after a second is looked for after these, until it is: nobody is told when it is.
const WAITS: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];

fn once(filter: &str) -> Filter {
    Filter::new(filter, QoS::AtLeastOnce)
}

async fn connect_311(at: &Door) -> anyhow::Result<String> {
    let connect = Connect {
        keep_alive: 60,
        client_id: "conformance-old".to_owned(),
        clean_start: true,
        properties: None,
    };
    let (_, ack) = at.enter(Version::V311, connect, None).await?;
    Ok(format!(
        "{:?}, session present: {}",
        ack.code, ack.session_present
    ))
}

async fn assigned_id(at: &Door) -> anyhow::Result<String> {
    let client = Client::open(at, "").await?;
    let properties = client.ack.properties.context("CONNACK has no properties")?;
    let has = properties.assigned_client_identifier.is_some();
    Ok(format!("an id is assigned: {has}"))
}

async fn limits(at: &Door) -> anyhow::Result<String> {
    let client = Client::open(at, "conformance-limits").await?;
    let properties = client.ack.properties.context("CONNACK has no properties")?;
    let says = |what, value: Option<u32>| value.map(|value| format!("{what} {value}"));
    let told = [
        says("receive maximum", properties.receive_max.map(u32::from)),
        says("aliases", properties.topic_alias_max.map(u32::from)),
        says("packet", properties.max_packet_size),
        says("QoS", properties.max_qos.map(u32::from)),
        says("retain", properties.retain_available.map(u32::from)),
    ];
    Ok(told.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

async fn taken_over(at: &Door) -> anyhow::Result<String> {
    let mut first = Client::open(at, "conformance-twin").await?;
    let _second = Client::open(at, "conformance-twin").await?;
    let end = timeout(Duration::from_secs(5), first.connection.receive()).await;
    Ok(format!(
        "the first is told: {:?}",
        end.context("it lives on")?.err()
    ))
}

async fn keep_alive(at: &Door) -> anyhow::Result<String> {
    let opening = Opening {
        keep_alive: 1,
        ..Opening::default()
    };
    let mut silent = Client::open_as(at, "conformance-silent", opening).await?;
    let end = timeout(Duration::from_secs(30), silent.connection.receive()).await;
    let end = end.context("it is never closed")?;
    Ok(format!("silence of a client ends in {:?}", end.err()))
}

fn last_will(topic: &str, delay: Option<u32>) -> LastWill {
    let properties = delay.map(|delay| LastWillProperties {
        delay_interval: Some(delay),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    });
    LastWill::new(topic, "gone", QoS::AtLeastOnce, false, properties)
}

async fn will(at: &Door) -> anyhow::Result<String> {
    let mut reader = Client::open(at, "conformance-heir").await?;
    reader.subscribe(once("conformance/will/+")).await?;
    let with_will = |topic: &'static str| Opening {
        will: Some(last_will(topic, None)),
        ..Opening::default()
    };
    let mut polite = Client::open_as(at, "conformance-polite", with_will("conformance/will/polite")).await?;
    let goodbye = Disconnect::new(DisconnectReasonCode::NormalDisconnection);
    polite.connection.send(&Packet::Disconnect(goodbye)).await?;
    drop(Client::open_as(at, "conformance-dying", with_will("conformance/will/dying")).await?);
    let topics = reader.messages().await?;
    let topics: Vec<_> = topics
        .iter()
        .map(|message| String::from_utf8_lossy(&message.topic))
        .collect();
    Ok(format!("published: {}", topics.join(" ")))
}

async fn will_delay(at: &Door) -> anyhow::Result<String> {
    let mut reader = Client::open(at, "conformance-patient").await?;
    reader.subscribe(once("conformance/delay")).await?;
    let opening = Opening {
        will: Some(last_will("conformance/delay", Some(2))),
        keeps: Some(60),
        ..Opening::default()
    };
    let delayed = Client::open_as(at, "conformance-delayed", opening).await?;
    let begin = Instant::now();
    drop(delayed);
    let published = reader.message().await?;
    let early = begin.elapsed() < Duration::from_secs(1);
    Ok(format!("published: {}, early: {early}", payloads(&[published])))
}

async fn retained(at: &Door) -> anyhow::Result<String> {
    let topic = "conformance/retained";
    let mut writer = Client::open(at, "conformance-writer").await?;
    let mut set = message(topic, QoS::AtLeastOnce, "value");
    set.retain = true;
    writer.publish(set.clone()).await?;
    let mut reader = Client::open(at, "conformance-reader").await?;
    reader.subscribe(once(topic)).await?;
    let shown = reader.messages().await?;
    let retain = shown.first().is_some_and(|shown| shown.retain);
    set.payload = Default::default();
    writer.publish(set).await?;
    let cleared = reader.messages().await?;
    let mut late = Client::open(at, "conformance-late").await?;
    late.subscribe(once(topic)).await?;
    Ok(format!(
        "shown {:?}, retain {retain}; clear seen {}; then {}",
        payloads(&shown),
        cleared.len(),
        late.messages().await?.len()
    ))
}

async fn retain_handling(at: &Door) -> anyhow::Result<String> {
    let topic = "conformance/handling";
    let mut writer = Client::open(at, "conformance-writer2").await?;
    let mut set = message(topic, QoS::AtLeastOnce, "value");
    set.retain = true;
    writer.publish(set.clone()).await?;
    let mut told = Vec::new();
    for rule in [
        RetainForwardRule::OnEverySubscribe,
        RetainForwardRule::OnNewSubscribe,
        RetainForwardRule::Never,
    ] {
        let mut reader = Client::open(at, "conformance-handler").await?;
        let mut filter = once(topic);
        filter.retain_forward_rule = rule;
        reader.subscribe(filter.clone()).await?;
        let first = reader.messages().await?.len();
        reader.subscribe(filter).await?;
        told.push(format!("{first}+{}", reader.messages().await?.len()));
    }
    let mut reader = Client::open(at, "conformance-handler").await?;
    let mut filter = once(topic);
    filter.preserve_retain = true;
    filter.retain_forward_rule = RetainForwardRule::Never;
    reader.subscribe(filter).await?;
    writer.publish(set).await?;
    let kept = reader.messages().await?.first().map(|message| message.retain);
    Ok(format!("{}; flag kept: {kept:?}", told.join(" ")))
}

async fn shared(at: &Door) -> anyhow::Result<String> {
    let mut members = Vec::new();
    for name in ["conformance-one", "conformance-two"] {
        let mut member = Client::open(at, name).await?;
        member.subscribe(once("$share/group/conformance/shared")).await?;
        members.push(member);
    }
    let mut writer = Client::open(at, "conformance-sharer").await?;
    for number in 0..20 {
        writer
            .publish(message(
                "conformance/shared",
                QoS::AtLeastOnce,
                &number.to_string(),
            ))
            .await?;
    }
    let mut counts = Vec::new();
    for member in &mut members {
        counts.push(member.messages().await?.len());
    }
    let both = counts.iter().all(|count| *count > 0);
    Ok(format!(
        "of 20 all members have {}, each some: {both}",
        counts.iter().sum::<usize>()
    ))
}

async fn topic_alias(at: &Door) -> anyhow::Result<String> {
    let mut reader = Client::open(at, "conformance-unaliased").await?;
    reader.subscribe(once("conformance/alias")).await?;
    let mut writer = Client::open(at, "conformance-aliased").await?;
    for topic in ["conformance/alias", ""] {
        let properties = PublishProperties {
            topic_alias: Some(1),
            ..PublishProperties::default()
        };
        writer
            .publish(message_with(topic, QoS::AtLeastOnce, "x", properties))
            .await?;
    }
    let topics = reader.messages().await?;
    let topics: Vec<_> = topics
        .iter()
        .map(|message| String::from_utf8_lossy(&message.topic))
        .collect();
    Ok(topics.join(" "))
}

async fn flow_control(at: &Door) -> anyhow::Result<String> {
    let opening = Opening {
        receive_maximum: Some(3),
        ..Opening::default()
    };
    let mut reader = Client::open_as(at, "conformance-slow", opening).await?;
    reader.subscribe(once("conformance/flow")).await?;
    let mut writer = Client::open(at, "conformance-fast").await?;
    for number in 0..10 {
        writer
            .publish(message("conformance/flow", QoS::AtLeastOnce, &number.to_string()))
            .await?;
    }
    // Nothing is acknowledged yet.
    let mut unacknowledged = Vec::new();
    while let Ok(packet) = timeout(super::client::SILENCE, reader.connection.receive()).await {
        if let Packet::Publish(publish) = packet? {
            unacknowledged.push(publish);
        }
    }
    for publish in &unacknowledged {
        let ack = mesh_runtime::mqtt::mqttbytes::v5::PubAck::new(publish.pkid, None);
        reader.connection.send(&Packet::PubAck(ack)).await?;
    }
    let rest = reader.messages().await?;
    Ok(format!(
        "{} unacknowledged, then {}",
        unacknowledged.len(),
        payloads(&rest)
    ))
}

async fn max_packet_size(at: &Door) -> anyhow::Result<String> {
    let opening = Opening {
        max_packet_size: Some(1000),
        ..Opening::default()
    };
    let mut reader = Client::open_as(at, "conformance-small", opening).await?;
    reader.subscribe(once("conformance/size")).await?;
    let mut writer = Client::open(at, "conformance-large").await?;
    for size in [100, 2000, 200] {
        writer
            .publish(message("conformance/size", QoS::AtLeastOnce, &"x".repeat(size)))
            .await?;
    }
    let sizes: Vec<usize> = reader
        .messages()
        .await?
        .iter()
        .map(|message| message.payload.len())
        .collect();
    Ok(format!("of 100, 2000, 200 bytes: {sizes:?}"))
}

async fn session_expiry(at: &Door) -> anyhow::Result<String> {
    let take_up = async |name: &str, expiry| {
        let opening = Opening {
            keeps: Some(expiry),
            ..Opening::default()
        };
        // Its connection ends at once.
        let client = Client::open_as(at, name, opening).await?;
        anyhow::Ok(client.ack.session_present)
    };
    let (brief, lasting) = ("conformance-brief", "conformance-lasting");
    take_up(lasting, 60).await?;
    let mut is_present = take_up(brief, 1).await?;
    for wait in WAITS {
        sleep(wait).await;
        is_present = take_up(brief, 1).await?;
        if !is_present {
            break;
        }
    }
    Ok(format!(
        "1 s: present {is_present}, 60 s: present {}",
        take_up(lasting, 60).await?
    ))
}

async fn message_expiry(at: &Door) -> anyhow::Result<String> {
    let mut came = Vec::new();
    for wait in WAITS {
        came = kept_for(at, wait).await?;
        if came.len() < 2 {
            break;
        }
    }
    let left = came
        .first()
        .and_then(|message| message.properties.as_ref()?.message_expiry_interval);
    let less = left.is_some_and(|left| left < 60);
    Ok(format!("kept: {}; its time is shorter: {less}", payloads(&came)))
}

/// What comes of a message that lasts for 1 s, and of one that lasts for 60, to a client that was away for `wait`.
async fn kept_for(at: &Door, wait: Duration) -> anyhow::Result<Vec<Publish>> {
    let opening = || Opening {
        keeps: Some(60),
        ..Opening::default()
    };
    let mut reader = Client::open_as(at, "conformance-away", opening()).await?;
    reader.subscribe(once("conformance/expiry")).await?;
    drop(reader);
    let mut writer = Client::open(at, "conformance-hasty").await?;
    for (payload, expiry) in [("brief", 1), ("lasting", 60)] {
        let properties = PublishProperties {
            message_expiry_interval: Some(expiry),
            ..PublishProperties::default()
        };
        let message = message_with("conformance/expiry", QoS::AtLeastOnce, payload, properties);
        writer.publish(message).await?;
    }
    sleep(wait).await;
    let mut reader = Client::open_as(at, "conformance-away", opening()).await?;
    reader.messages().await
}

async fn request_response(at: &Door) -> anyhow::Result<String> {
    let mut server = Client::open(at, "conformance-server").await?;
    server.subscribe(once("conformance/request")).await?;
    let mut client = Client::open(at, "conformance-asker").await?;
    client.subscribe(once("conformance/response")).await?;
    let properties = PublishProperties {
        response_topic: Some("conformance/response".to_owned()),
        correlation_data: Some("7".into()),
        content_type: Some("text/plain".to_owned()),
        payload_format_indicator: Some(1),
        ..PublishProperties::default()
    };
    client
        .publish(message_with(
            "conformance/request",
            QoS::AtLeastOnce,
            "ask",
            properties,
        ))
        .await?;
    let request = server
        .messages()
        .await?
        .into_iter()
        .next()
        .context("no request")?;
    let asked = request.properties.context("it has no properties")?;
    let (kind, format) = (asked.content_type.clone(), asked.payload_format_indicator);
    let topic = asked.response_topic.context("no response topic")?;
    let properties = PublishProperties {
        correlation_data: asked.correlation_data,
        ..PublishProperties::default()
    };
    server
        .publish(message_with(&topic, QoS::AtLeastOnce, "answer", properties))
        .await?;
    let answer = client.messages().await?.into_iter().next().context("no answer")?;
    let data = answer
        .properties
        .and_then(|properties| properties.correlation_data);
    Ok(format!("{kind:?}, {format:?}, answer to {data:?}"))
}

async fn user_properties(at: &Door) -> anyhow::Result<String> {
    let mut reader = Client::open(at, "conformance-properties").await?;
    reader.subscribe(once("conformance/properties")).await?;
    let mut writer = Client::open(at, "conformance-named").await?;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let properties = PublishProperties {
        user_properties: vec![pair("b", "1"), pair("a", "2"), pair("b", "3")],
        ..PublishProperties::default()
    };
    writer
        .publish(message_with(
            "conformance/properties",
            QoS::AtLeastOnce,
            "x",
            properties,
        ))
        .await?;
    let message = reader
        .messages()
        .await?
        .into_iter()
        .next()
        .context("no message")?;
    let properties = message
        .properties
        .context("it has no properties")?
        .user_properties;
    let told = properties.iter().map(|(name, value)| match name.as_str() {
        // Its value differs each time.
        "mesh" => name.clone(),
        name => format!("{name}={value}"),
    });
    Ok(told.collect::<Vec<_>>().join(" "))
}

async fn options(at: &Door) -> anyhow::Result<String> {
    let topic = "conformance/options";
    let mut reader = Client::open(at, "conformance-options").await?;
    reader
        .subscribe_as(Filter::new(topic, QoS::ExactlyOnce), Some(9))
        .await?;
    let mut other = Client::open(at, "conformance-others").await?;
    other.publish(message(topic, QoS::ExactlyOnce, "two")).await?;
    other.publish(message(topic, QoS::AtMostOnce, "zero")).await?;
    let came = reader.messages().await?;
    let ids: Vec<_> = came
        .iter()
        .flat_map(|message| &message.properties)
        .flat_map(|properties| properties.subscription_identifiers.clone())
        .collect();
    let qos: Vec<_> = came.iter().map(|message| message.qos as u8).collect();
    let mut filter = once("conformance/local");
    filter.nolocal = true;
    reader.subscribe(filter).await?;
    reader
        .publish(message("conformance/local", QoS::AtLeastOnce, "own"))
        .await?;
    let own = reader.messages().await?.len();
    Ok(format!(
        "QoS {qos:?}, subscription ids {ids:?}, own messages {own}"
    ))
}

async fn nobody(at: &Door) -> anyhow::Result<String> {
    let mut writer = Client::open(at, "conformance-lonely").await?;
    let reason = writer
        .publish(message("conformance/nobody", QoS::AtLeastOnce, "x"))
        .await?;
    Ok(format!("PUBACK {reason}"))
}
