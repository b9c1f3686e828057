//! The border to the broker: the only module with `unsafe`.
//!
//! Inward it offers values with lifetimes ([`Client`], [`Message`], …) that are valid for one callback.
//! Outward it guarantees that no panic crosses into the broker ([`guard`]), and that no pointer is followed
//! outside the callback that brought it, but for sessions of the mesh's own users, between their login and
//! their DISCONNECT ([`Contexts`]).
//!
//! The broker runs its plugins on one thread, and may call a plugin back from within a call that the plugin
//! makes: a log line that goes to `$SYS/broker/log/…` asks ACL READ for its subscribers, and a kick raises
//! DISCONNECT. Nothing may be borrowed mutably while [`log`], [`publish`] or [`kick`] runs.
#![allow(unsafe_code)]

pub mod abi;
pub mod allocator;
pub mod entry;
pub mod files;
mod properties;
mod publish;
pub mod socket;

pub use properties::readable;
pub use publish::{publish, publish_retained, publish_to};

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use crate::message::Property;
use crate::policy::{ClientKey, TopicKey};

/// A client of the broker, for the duration of one callback.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    context: *const abi::Context,
    event: PhantomData<&'a abi::Context>,
}

impl<'a> Client<'a> {
    /// # Safety
    ///
    /// `context` is what the broker gave to a callback, and `'a` ends with that callback.
    unsafe fn new(context: *const abi::Context) -> Self {
        Self {
            context,
            event: PhantomData,
        }
    }

    /// What tells this client from every other one that is connected at the same time.
    pub fn key(&self) -> ClientKey {
        ClientKey(self.context.addr())
    }

    /// The client id.
    pub fn id(&self) -> Option<&'a [u8]> {
        // SAFETY: `context` is valid during `'a`; the broker keeps the id for as long.
        unsafe { bytes(abi::mosquitto_client_id(self.context)) }
    }

    /// The user name; of a bridge that this broker runs, its `local_username`.
    pub fn user(&self) -> Option<&'a [u8]> {
        // SAFETY: as for `id`; nobody renames a client within a callback of ours.
        unsafe { bytes(abi::mosquitto_client_username(self.context)) }
    }

    /// Whether the client came over the network. A bridge that this broker runs has no address, nor has the
    /// stand-in that the broker asks about when it delivers a stored message (`check_retain_source`).
    pub fn is_network(&self) -> bool {
        // SAFETY: `context` is valid during `'a`; the result is only compared with null.
        !unsafe { abi::mosquitto_client_address(self.context) }.is_null()
    }

    /// Whether the client asked for a clean session.
    pub fn clean_session(&self) -> bool {
        // SAFETY: `context` is valid during `'a`.
        unsafe { abi::mosquitto_client_clean_session(self.context) }
    }
}

/// A question whether a client may do something.
pub struct AclCheck<'a> {
    /// Who asks.
    pub client: Client<'a>,
    /// What for.
    pub access: Access,
    /// Which stored topic is asked about.
    pub topic_key: TopicKey,
    /// The quality of service that the message was published with.
    pub qos: u8,
    /// Whether it was published to be kept.
    pub retain: bool,
    /// The length of its payload.
    pub length: usize,
    topic: *const c_char,
    payload: *const c_void,
}

impl<'a> AclCheck<'a> {
    /// The topic, or the topic filter.
    pub fn topic(&self) -> &'a [u8] {
        // SAFETY: the pointer came with this event and is valid as long as the event.
        unsafe { bytes(self.topic) }.unwrap_or_default()
    }

    /// The payload of the message.
    pub fn payload(&self) -> &'a [u8] {
        // SAFETY: as for `topic`; the broker gives as many bytes as it says.
        unsafe { data(self.payload, self.length) }
    }
}

/// What a client wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Receive a message.
    Read,
    /// Publish.
    Write,
    /// Subscribe.
    Subscribe,
    /// Unsubscribe, or what later versions may ask.
    Other,
}

/// A client that wants to connect.
pub struct BasicAuth<'a> {
    /// Who.
    pub client: Client<'a>,
    /// The user name that was sent.
    pub user: Option<&'a [u8]>,
    /// The password that was sent.
    pub password: Option<&'a [u8]>,
}

/// A message that was published.
pub struct Message<'a> {
    /// By whom.
    pub client: Client<'a>,
    /// Where its topic is stored.
    pub topic_key: TopicKey,
    /// The quality of service.
    pub qos: u8,
    /// Whether it was published to be kept.
    pub retain: bool,
    event: *mut abi::EvtMessage,
    content: PhantomData<&'a [u8]>,
}

impl<'a> Message<'a> {
    /// # Safety
    ///
    /// `event` is what the broker gave to a callback, and `'a` ends with that callback.
    unsafe fn new(event: *mut abi::EvtMessage) -> Self {
        // SAFETY: by the contract of this function.
        let (client, topic, qos, retain) =
            unsafe { ((*event).client, (*event).topic, (*event).qos, (*event).retain) };
        Self {
            // SAFETY: the pointer is the event's own.
            client: unsafe { Client::new(client) },
            topic_key: TopicKey(topic.addr()),
            qos,
            retain,
            event,
            content: PhantomData,
        }
    }

    /// The topic.
    pub fn topic(&self) -> &'a [u8] {
        // SAFETY: the event is valid during `'a`, and nobody changes its topic in a callback of ours.
        unsafe { bytes((*self.event).topic) }.unwrap_or_default()
    }

    /// The payload.
    pub fn payload(&self) -> &'a [u8] {
        // SAFETY: as for `topic`; the broker gives as many bytes as it says.
        unsafe { data((*self.event).payload, (*self.event).payloadlen as usize) }
    }

    /// The properties, without the expiry, which Mosquitto keeps elsewhere.
    pub fn properties(&self) -> impl Iterator<Item = Property<'_>> {
        // SAFETY: the list is the event's, and [`readable`] held at the start. `append` is not called while the
        // iterator lives, since it takes the message exclusively.
        unsafe { properties::read((*self.event).properties) }
    }

    /// Appends a user property; `value` contains no zero, and one is put behind it. Nothing else may be done to the
    /// list: who frees one that is replaced differs between versions of Mosquitto.
    pub fn append(&mut self, name: &CStr, value: &mut String) -> Result<(), c_int> {
        value.push('\0');
        let value = CStr::from_bytes_with_nul(value.as_bytes()).map_err(|_| abi::ERR_INVAL)?;
        // SAFETY: the list is the event's; the broker copies both texts and puts the property at the end.
        let code = unsafe {
            abi::mosquitto_property_add_string_pair(
                &raw mut (*self.event).properties,
                abi::PROP_USER,
                name.as_ptr(),
                value.as_ptr(),
            )
        };
        if code == abi::SUCCESS { Ok(()) } else { Err(code) }
    }

    /// Has the message kept for later subscribers, or not.
    pub fn set_retain(&mut self, retain: bool) {
        // SAFETY: the event is valid, and the broker takes this field back.
        unsafe { (*self.event).retain = retain };
        self.retain = retain;
    }
}

/// The contexts of sessions that are looked at outside a callback of their own.
///
/// The broker raises DISCONNECT for every context before it frees it, and the entry point for DISCONNECT
/// removes it here whatever else happens: what stands here is alive.
#[derive(Default)]
pub struct Contexts(RefCell<Vec<*const abi::Context>>);

impl Contexts {
    /// Keeps `client` until its DISCONNECT.
    pub fn keep(&self, client: Client<'_>) {
        let mut kept = self.0.borrow_mut();
        if !kept.contains(&client.context) {
            kept.push(client.context);
        }
    }

    /// How many subscriptions `client` has; `None` if it is not kept.
    pub fn sub_count(&self, client: ClientKey) -> Option<usize> {
        let kept = self.0.borrow();
        let context = kept.iter().find(|context| context.addr() == client.0)?;
        // SAFETY: what is kept is alive, see above.
        let count = unsafe { abi::mosquitto_client_sub_count(*context) };
        usize::try_from(count).ok()
    }

    fn drop_context(&self, context: *const abi::Context) {
        self.0.borrow_mut().retain(|kept| *kept != context);
    }
}

/// How much a log line matters, as Mosquitto counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Level {
    /// A transition that an operator wants to read.
    Notice = 1 << 1,
    /// Something is degraded.
    Warning = 1 << 2,
    /// An operator must act.
    Error = 1 << 3,
}

/// Writes `text` to the broker's log, after our name. Mosquitto 2.0 cuts lines at about 500 bytes.
pub fn log(level: Level, text: &str) {
    let line = c_string(&format!("mesh-plugin: {text}"));
    // SAFETY: the format takes exactly one string, and `line` outlives the call.
    unsafe { abi::mosquitto_log_printf(level as c_int, c"%s".as_ptr(), line.as_ptr()) }
}

/// Ends the connection of the client with this id, without its will. Only for a client that is connected: Mosquitto
/// ends a session without one a second time, and uses later what it has freed then.
pub fn kick(client_id: &str) {
    kick_client(client_id, false);
}

/// Ends the connection of the client with this id, if there is one, as if it had broken: a will is published. Tells
/// whether there is such a session, be it connected or not. A session that is not is left as it is, but for a
/// DISCONNECT that Mosquitto puts into its queue.
pub fn break_off(client_id: &str) -> bool {
    kick_client(client_id, true)
}

fn kick_client(client_id: &str, with_will: bool) -> bool {
    let id = c_string(client_id);
    // SAFETY: `id` outlives the call. The broker calls us back from within; nothing is borrowed here.
    let code = unsafe { abi::mosquitto_kick_client_by_clientid(id.as_ptr(), with_will) };
    // The only error is that there is no such client.
    code == abi::SUCCESS
}

/// Runs `body`. If it panics, says so in the log, with the place, and answers `safe` instead.
fn guard(event: &str, body: impl FnOnce() -> c_int, safe: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        let what = entry::take_panic();
        log(
            Level::Error,
            &format!("bug in {event}, the broker goes on: {what}"),
        );
        safe()
    })
}

/// # Safety
///
/// `text` is null or points to a string that ends with a zero and lives as long as `'a`.
unsafe fn bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: by the contract of this function.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// # Safety
///
/// `start` is null or points to `length` bytes that live as long as `'a`.
unsafe fn data<'a>(start: *const c_void, length: usize) -> &'a [u8] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: by the contract of this function.
    unsafe { slice::from_raw_parts(start.cast(), length) }
}

fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "?")).unwrap_or_default()
}
