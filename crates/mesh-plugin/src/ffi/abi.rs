//! The binary interface of Mosquitto's plugin API v5, as `mosquitto_broker.h` of 2.0.11 declares it.
//!
//! Only what is used is declared. The layout of every field that is read is held by the assertions below, for
//! the 64-bit targets that brokers run on; a target where it differs does not build.

use std::ffi::{c_char, c_int, c_void};
use std::mem::offset_of;

/// A client of the broker; only ever seen behind a pointer.
#[repr(C)]
pub struct Context {
    _opaque: [u8; 0],
}

/// What the broker knows the plugin by; only ever seen behind a pointer.
#[repr(C)]
pub struct PluginId {
    _opaque: [u8; 0],
}

/// A property and those after it. Its definition is the broker's own (`property_mosq.h`) and was the same, as far
/// as it stands here, from 2.0.0 to 2.1.2; more follows in the broker's memory. `ffi/properties.rs` makes sure at
/// the start.
#[repr(C)]
pub struct Property {
    /// The next one, or null.
    pub next: *const Property,
    /// The value: a number, or text.
    pub value: PropertyValue,
    /// The name of a user property.
    pub name: PropertyText,
    /// One of the `PROP_` constants.
    pub identifier: i32,
}

/// What of a property's value is used.
#[repr(C)]
pub union PropertyValue {
    /// Of a property of one byte.
    pub byte: u8,
    /// Of a property of four bytes.
    pub int32: u32,
    /// Of a property that is text or bytes.
    pub text: PropertyText,
}

/// Text or bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PropertyText {
    /// Where they stand.
    pub start: *const u8,
    /// How many they are.
    pub length: u16,
}

/// One `plugin_opt_` line.
#[repr(C)]
pub struct Opt {
    /// What follows `plugin_opt_`.
    pub key: *mut c_char,
    /// The rest of the line.
    pub value: *mut c_char,
}

/// The data of `MOSQ_EVT_ACL_CHECK`.
#[repr(C)]
pub struct EvtAclCheck {
    future: *mut c_void,
    /// Who asks.
    pub client: *mut Context,
    /// The topic, or the topic filter of a subscription.
    pub topic: *const c_char,
    /// The payload, or null.
    pub payload: *const c_void,
    properties: *mut c_void,
    /// One of the `ACL_` constants.
    pub access: c_int,
    /// The length of the payload.
    pub payloadlen: u32,
    /// The quality of service that the message was published with.
    pub qos: u8,
    /// Whether the message was published to be kept.
    pub retain: bool,
    future2: [*mut c_void; 4],
}

/// The data of `MOSQ_EVT_BASIC_AUTH`.
#[repr(C)]
pub struct EvtBasicAuth {
    future: *mut c_void,
    /// Who logs in.
    pub client: *mut Context,
    /// The user name, or null.
    pub username: *mut c_char,
    /// The password, or null.
    pub password: *mut c_char,
    future2: [*mut c_void; 4],
}

/// The data of `MOSQ_EVT_MESSAGE`.
#[repr(C)]
pub struct EvtMessage {
    future: *mut c_void,
    /// Who publishes.
    pub client: *mut Context,
    /// The topic.
    pub topic: *mut c_char,
    /// The payload, or null.
    pub payload: *mut c_void,
    /// Its properties.
    pub properties: *mut Property,
    reason_string: *mut c_char,
    /// The length of the payload.
    pub payloadlen: u32,
    /// The quality of service.
    pub qos: u8,
    reason_code: u8,
    /// Whether it is to be kept.
    pub retain: bool,
    future2: [*mut c_void; 4],
}

/// The data of `MOSQ_EVT_DISCONNECT`.
#[repr(C)]
pub struct EvtDisconnect {
    future: *mut c_void,
    /// Whose connection ended.
    pub client: *mut Context,
    reason: c_int,
    future2: [*mut c_void; 4],
}

/// The data of `MOSQ_EVT_TICK`. Mosquitto 2.0 fills it with zeros and looks at nothing of it.
#[repr(C)]
pub struct EvtTick {
    future: *mut c_void,
    /// Nanoseconds of the second.
    pub now_ns: i64,
    /// Mosquitto 2.1 calls again when so many milliseconds have passed,
    pub next_ms: i64,
    /// Seconds since 1970, as the machine believes.
    pub now_s: i64,
    /// and so many seconds.
    pub next_s: i64,
    future2: [*mut c_void; 4],
}

const _: () = {
    assert!(size_of::<Opt>() == 16);
    assert!(offset_of!(Opt, key) == 0);
    assert!(offset_of!(Opt, value) == 8);
    assert!(size_of::<EvtAclCheck>() == 88);
    assert!(offset_of!(EvtAclCheck, client) == 8);
    assert!(offset_of!(EvtAclCheck, topic) == 16);
    assert!(offset_of!(EvtAclCheck, payload) == 24);
    assert!(offset_of!(EvtAclCheck, access) == 40);
    assert!(offset_of!(EvtAclCheck, payloadlen) == 44);
    assert!(offset_of!(EvtAclCheck, qos) == 48);
    assert!(offset_of!(EvtAclCheck, retain) == 49);
    assert!(size_of::<EvtBasicAuth>() == 64);
    assert!(offset_of!(EvtBasicAuth, client) == 8);
    assert!(offset_of!(EvtBasicAuth, username) == 16);
    assert!(offset_of!(EvtBasicAuth, password) == 24);
    assert!(size_of::<EvtMessage>() == 88);
    assert!(offset_of!(EvtMessage, client) == 8);
    assert!(offset_of!(EvtMessage, topic) == 16);
    assert!(offset_of!(EvtMessage, payload) == 24);
    assert!(offset_of!(EvtMessage, properties) == 32);
    assert!(offset_of!(EvtMessage, payloadlen) == 48);
    assert!(offset_of!(EvtMessage, qos) == 52);
    assert!(offset_of!(EvtMessage, retain) == 54);
    assert!(size_of::<EvtTick>() == 72);
    assert!(offset_of!(EvtTick, now_ns) == 8);
    assert!(offset_of!(EvtTick, next_ms) == 16);
    assert!(offset_of!(EvtTick, now_s) == 24);
    assert!(offset_of!(EvtTick, next_s) == 32);
    assert!(offset_of!(Property, value) == 8);
    assert!(offset_of!(Property, name) == 24);
    assert!(offset_of!(Property, identifier) == 40);
    assert!(size_of::<EvtDisconnect>() == 56);
    assert!(offset_of!(EvtDisconnect, client) == 8);
};

/// A function that the broker calls with the event, its data and what was given at registration.
pub type Callback = unsafe extern "C" fn(c_int, *mut c_void, *mut c_void) -> c_int;

/// `MOSQ_EVT_RELOAD`.
pub const EVT_RELOAD: c_int = 1;
/// `MOSQ_EVT_ACL_CHECK`.
pub const EVT_ACL_CHECK: c_int = 2;
/// `MOSQ_EVT_BASIC_AUTH`.
pub const EVT_BASIC_AUTH: c_int = 3;
/// `MOSQ_EVT_MESSAGE`.
pub const EVT_MESSAGE: c_int = 7;
/// `MOSQ_EVT_TICK`.
pub const EVT_TICK: c_int = 9;
/// `MOSQ_EVT_DISCONNECT`.
pub const EVT_DISCONNECT: c_int = 10;
/// `MOSQ_EVT_CLIENT_OFFLINE`, which came with Mosquitto 2.1: instead of DISCONNECT for sessions that outlive their
/// connection. Its data begins as that of DISCONNECT.
pub const EVT_CLIENT_OFFLINE: c_int = 28;
/// `MOSQ_EVT_CONNECT`, which came with Mosquitto 2.1.
pub const EVT_CONNECT: c_int = 11;

/// `MQTT_PROP_PAYLOAD_FORMAT_INDICATOR`.
pub const PROP_PAYLOAD_FORMAT: c_int = 1;
/// `MQTT_PROP_MESSAGE_EXPIRY_INTERVAL`.
pub const PROP_MESSAGE_EXPIRY: c_int = 2;
/// `MQTT_PROP_CONTENT_TYPE`.
pub const PROP_CONTENT_TYPE: c_int = 3;
/// `MQTT_PROP_RESPONSE_TOPIC`.
pub const PROP_RESPONSE_TOPIC: c_int = 8;
/// `MQTT_PROP_CORRELATION_DATA`.
pub const PROP_CORRELATION_DATA: c_int = 9;
/// `MQTT_PROP_USER_PROPERTY`.
pub const PROP_USER: c_int = 38;

/// `MOSQ_ACL_READ`.
pub const ACL_READ: c_int = 1;
/// `MOSQ_ACL_WRITE`.
pub const ACL_WRITE: c_int = 2;
/// `MOSQ_ACL_SUBSCRIBE`.
pub const ACL_SUBSCRIBE: c_int = 4;

/// `MOSQ_ERR_SUCCESS`.
pub const SUCCESS: c_int = 0;
/// `MOSQ_ERR_INVAL`.
pub const ERR_INVAL: c_int = 3;
/// `MOSQ_ERR_AUTH`.
pub const ERR_AUTH: c_int = 11;
/// `MOSQ_ERR_ACL_DENIED`.
pub const ERR_ACL_DENIED: c_int = 12;
/// `MOSQ_ERR_UNKNOWN`.
pub const ERR_UNKNOWN: c_int = 13;
/// `MOSQ_ERR_PLUGIN_DEFER`.
pub const ERR_PLUGIN_DEFER: c_int = 17;

/// The version of the plugin API that is spoken here.
pub const PLUGIN_VERSION: c_int = 5;

// Exported by the broker's executable.
unsafe extern "C" {
    /// Has `callback` called at `event`.
    pub fn mosquitto_callback_register(
        id: *mut PluginId,
        event: c_int,
        callback: Callback,
        event_data: *const c_void,
        userdata: *mut c_void,
    ) -> c_int;
    /// Ends that.
    pub fn mosquitto_callback_unregister(
        id: *mut PluginId,
        event: c_int,
        callback: Callback,
        event_data: *const c_void,
    ) -> c_int;
    /// The address of a client that came over the network, else null.
    pub fn mosquitto_client_address(client: *const Context) -> *const c_char;
    /// Whether the client asked for a clean session.
    pub fn mosquitto_client_clean_session(client: *const Context) -> bool;
    /// The client id.
    pub fn mosquitto_client_id(client: *const Context) -> *const c_char;
    /// How many subscriptions the client has.
    pub fn mosquitto_client_sub_count(client: *const Context) -> c_int;
    /// The user name; of a bridge that this broker runs, its `local_username`.
    pub fn mosquitto_client_username(client: *const Context) -> *const c_char;
    /// Writes a line to the broker's log.
    pub fn mosquitto_log_printf(level: c_int, format: *const c_char, ...);
    /// Publishes at the next turn of the broker's loop.
    pub fn mosquitto_broker_publish_copy(
        client_id: *const c_char,
        topic: *const c_char,
        payload_len: c_int,
        payload: *const c_void,
        qos: c_int,
        retain: bool,
        properties: *mut Property,
    ) -> c_int;
    /// Appends a property of one byte.
    pub fn mosquitto_property_add_byte(list: *mut *mut Property, identifier: c_int, value: u8) -> c_int;
    /// Appends a property of four bytes.
    pub fn mosquitto_property_add_int32(list: *mut *mut Property, identifier: c_int, value: u32) -> c_int;
    /// Appends a property that is text; copies it.
    pub fn mosquitto_property_add_string(
        list: *mut *mut Property,
        identifier: c_int,
        value: *const c_char,
    ) -> c_int;
    /// Appends a property of any bytes; copies them.
    pub fn mosquitto_property_add_binary(
        list: *mut *mut Property,
        identifier: c_int,
        value: *const c_void,
        length: u16,
    ) -> c_int;
    /// Appends a property that is a name and a value; copies both.
    pub fn mosquitto_property_add_string_pair(
        list: *mut *mut Property,
        identifier: c_int,
        name: *const c_char,
        value: *const c_char,
    ) -> c_int;
    /// Frees a list.
    pub fn mosquitto_property_free_all(list: *mut *mut Property);
    /// Ends the connection of a client.
    pub fn mosquitto_kick_client_by_clientid(client_id: *const c_char, with_will: bool) -> c_int;
}
