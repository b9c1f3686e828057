//! What the broker calls: the three functions that it looks up by name, and the callbacks.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::panic;
use std::ptr;

use super::abi::{
    self, Callback, EvtAclCheck, EvtBasicAuth, EvtDisconnect, EvtMessage, EvtTick, Opt, PluginId,
};
use super::{Access, AclCheck, BasicAuth, Client, Level, Message, bytes, guard, log, readable};
use crate::hooks::Plugin;
use crate::policy::TopicKey;

/// What the broker keeps for us between calls.
struct Loaded {
    id: *mut PluginId,
    plugin: Plugin,
}

const CALLBACKS: [(c_int, Callback); 6] = [
    (abi::EVT_RELOAD, on_reload),
    (abi::EVT_BASIC_AUTH, on_basic_auth),
    (abi::EVT_ACL_CHECK, on_acl_check),
    (abi::EVT_MESSAGE, on_message),
    (abi::EVT_DISCONNECT, on_disconnect),
    (abi::EVT_TICK, on_tick),
];

thread_local! {
    /// Message and place of the last panic, from the hook to [`guard`].
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The message and the place of the panic that was just caught.
pub(super) fn take_panic() -> String {
    LAST_PANIC
        .try_with(|last| last.borrow_mut().take())
        .ok()
        .flatten()
        .unwrap_or_else(|| "no message".to_owned())
}

/// The version of the plugin API that is spoken, or -1.
///
/// # Safety
///
/// Called by the broker: `versions` points to `count` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mosquitto_plugin_version(count: c_int, versions: *const c_int) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    if versions.is_null() {
        return -1;
    }
    // SAFETY: the broker gives an array of this length.
    let versions = unsafe { std::slice::from_raw_parts(versions, count) };
    if versions.contains(&abi::PLUGIN_VERSION) {
        abi::PLUGIN_VERSION
    } else {
        -1
    }
}

/// Reads the options and registers the callbacks. Anything but 0 keeps the broker from starting.
///
/// # Safety
///
/// Called by the broker: `userdata` may be written, `opts` points to `count` options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mosquitto_plugin_init(
    id: *mut PluginId,
    userdata: *mut *mut c_void,
    opts: *mut Opt,
    count: c_int,
) -> c_int {
    // Ours alone: a library of this kind carries a standard library of its own.
    panic::set_hook(Box::new(|info| {
        let text = info.to_string().replace('\n', " ");
        let _ = LAST_PANIC.try_with(|last| *last.borrow_mut() = Some(text));
    }));
    let start = || {
        // SAFETY: the broker gives an array of this length whose strings end with a zero.
        let options = unsafe { pairs(opts, count) };
        // SAFETY: `id` is the broker's.
        let newer = unsafe { is_newer(id) };
        if !readable() {
            log(
                Level::Error,
                "this version of Mosquitto keeps properties in another way than 2.0 and 2.1: mesh-plugin must be \
                 adapted to it (ffi/properties.rs)",
            );
            return abi::ERR_INVAL;
        }
        let Some(plugin) = Plugin::start(&options, newer) else {
            return abi::ERR_INVAL;
        };
        let loaded = Box::into_raw(Box::new(Loaded { id, plugin }));
        for (event, callback) in CALLBACKS {
            // SAFETY: `id` is the broker's; `loaded` lives until `mosquitto_plugin_cleanup`, which
            // unregisters the callbacks first.
            let code =
                unsafe { abi::mosquitto_callback_register(id, event, callback, ptr::null(), loaded.cast()) };
            if code != abi::SUCCESS {
                log(
                    Level::Error,
                    &format!("the broker refuses a callback for event {event}: error {code}"),
                );
                return code;
            }
        }
        if newer {
            // SAFETY: as above. Where there is no such event, DISCONNECT comes for every connection.
            unsafe {
                let event = abi::EVT_CLIENT_OFFLINE;
                abi::mosquitto_callback_register(id, event, on_client_offline, ptr::null(), loaded.cast())
            };
        }
        // SAFETY: the broker passes a place for our pointer.
        unsafe { *userdata = loaded.cast() };
        abi::SUCCESS
    };
    guard("init", start, || abi::ERR_UNKNOWN)
}

/// Whether this is Mosquitto 2.1 or later. It is known by an event that came with it.
///
/// # Safety
///
/// `id` is what the broker gave to `mosquitto_plugin_init`.
unsafe fn is_newer(id: *mut PluginId) -> bool {
    // SAFETY: `id` is valid, and the callback does nothing with its arguments.
    unsafe {
        let code =
            abi::mosquitto_callback_register(id, abi::EVT_CONNECT, ignore, ptr::null(), ptr::null_mut());
        if code == abi::SUCCESS {
            abi::mosquitto_callback_unregister(id, abi::EVT_CONNECT, ignore, ptr::null());
        }
        code == abi::SUCCESS
    }
}

unsafe extern "C" fn ignore(_: c_int, _: *mut c_void, _: *mut c_void) -> c_int {
    abi::ERR_PLUGIN_DEFER
}

/// Unregisters the callbacks and frees what was kept.
///
/// # Safety
///
/// Called by the broker: `userdata` is what `mosquitto_plugin_init` left there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mosquitto_plugin_cleanup(userdata: *mut c_void, _: *mut Opt, _: c_int) -> c_int {
    if userdata.is_null() {
        return abi::SUCCESS;
    }
    // SAFETY: made by `Box::into_raw` in `mosquitto_plugin_init`; the broker calls this once.
    let loaded = unsafe { Box::from_raw(userdata.cast::<Loaded>()) };
    for (event, callback) in CALLBACKS {
        // SAFETY: the same arguments as at registration.
        unsafe { abi::mosquitto_callback_unregister(loaded.id, event, callback, ptr::null()) };
    }
    // SAFETY: as above; an error if it was not registered.
    unsafe {
        abi::mosquitto_callback_unregister(loaded.id, abi::EVT_CLIENT_OFFLINE, on_client_offline, ptr::null())
    };
    abi::SUCCESS
}

/// # Safety
///
/// `opts` is null or points to `count` options whose strings end with a zero.
unsafe fn pairs(opts: *const Opt, count: c_int) -> Vec<(String, String)> {
    let count = usize::try_from(count).unwrap_or(0);
    if opts.is_null() || count == 0 {
        return Vec::new();
    }
    // SAFETY: by the contract of this function.
    let opts = unsafe { std::slice::from_raw_parts(opts, count) };
    // SAFETY: by the contract of this function.
    let text = |at| String::from_utf8_lossy(unsafe { bytes(at) }.unwrap_or_default()).into_owned();
    opts.iter().map(|opt| (text(opt.key), text(opt.value))).collect()
}

unsafe extern "C" fn on_reload(_: c_int, _: *mut c_void, userdata: *mut c_void) -> c_int {
    // SAFETY: the broker passes what was registered, which lives until cleanup.
    let loaded = unsafe { &*userdata.cast::<Loaded>() };
    guard("RELOAD", || loaded.plugin.reload(), || abi::SUCCESS)
}

unsafe extern "C" fn on_basic_auth(_: c_int, data: *mut c_void, userdata: *mut c_void) -> c_int {
    // SAFETY: the broker passes what was registered, which lives until cleanup, and the data of this event.
    let (loaded, event) = unsafe { (&*userdata.cast::<Loaded>(), &*data.cast::<EvtBasicAuth>()) };
    // SAFETY: all three pointers are the event's own.
    let login = unsafe {
        BasicAuth {
            client: Client::new(event.client),
            user: bytes(event.username),
            password: bytes(event.password),
        }
    };
    guard(
        "BASIC_AUTH",
        || loaded.plugin.basic_auth(&login),
        || abi::ERR_AUTH,
    )
}

unsafe extern "C" fn on_acl_check(_: c_int, data: *mut c_void, userdata: *mut c_void) -> c_int {
    // SAFETY: as in `on_basic_auth`.
    let (loaded, event) = unsafe { (&*userdata.cast::<Loaded>(), &*data.cast::<EvtAclCheck>()) };
    let check = AclCheck {
        // SAFETY: the pointer is the event's own.
        client: unsafe { Client::new(event.client) },
        access: match event.access {
            abi::ACL_READ => Access::Read,
            abi::ACL_WRITE => Access::Write,
            abi::ACL_SUBSCRIBE => Access::Subscribe,
            _ => Access::Other,
        },
        topic_key: TopicKey(event.topic.addr()),
        qos: event.qos,
        retain: event.retain,
        length: event.payloadlen as usize,
        topic: event.topic,
        payload: event.payload,
    };
    guard(
        "ACL_CHECK",
        || loaded.plugin.acl_check(&check),
        || loaded.plugin.acl_check_failed(&check),
    )
}

unsafe extern "C" fn on_message(_: c_int, data: *mut c_void, userdata: *mut c_void) -> c_int {
    // SAFETY: the broker passes what was registered, which lives until cleanup.
    let loaded = unsafe { &*userdata.cast::<Loaded>() };
    // SAFETY: the broker passes the data of this event, and looks at it again when we return.
    let mut message = unsafe { Message::new(data.cast::<EvtMessage>()) };
    let client = message.client;
    guard(
        "MESSAGE",
        || loaded.plugin.message(&mut message),
        || loaded.plugin.message_failed(client),
    )
}

unsafe extern "C" fn on_disconnect(_: c_int, data: *mut c_void, userdata: *mut c_void) -> c_int {
    // SAFETY: as in `on_basic_auth`.
    let (loaded, event) = unsafe { (&*userdata.cast::<Loaded>(), &*data.cast::<EvtDisconnect>()) };
    // First, since the context is freed soon after, whatever becomes of the rest.
    loaded.plugin.contexts().drop_context(event.client);
    // SAFETY: the pointer is the event's own.
    let client = unsafe { Client::new(event.client) };
    guard("DISCONNECT", || loaded.plugin.disconnect(client), || abi::SUCCESS)
}

unsafe extern "C" fn on_client_offline(_: c_int, data: *mut c_void, userdata: *mut c_void) -> c_int {
    // SAFETY: as in `on_basic_auth`; the data begins as that of DISCONNECT.
    let (loaded, event) = unsafe { (&*userdata.cast::<Loaded>(), &*data.cast::<EvtDisconnect>()) };
    // SAFETY: the pointer is the event's own.
    let client = unsafe { Client::new(event.client) };
    guard(
        "CLIENT_OFFLINE",
        || loaded.plugin.disconnect(client),
        || abi::SUCCESS,
    )
}

unsafe extern "C" fn on_tick(_: c_int, data: *mut c_void, userdata: *mut c_void) -> c_int {
    // SAFETY: as in `on_basic_auth`.
    let (loaded, event) = unsafe { (&*userdata.cast::<Loaded>(), &mut *data.cast::<EvtTick>()) };
    // At the next turn of the loop again, that is since 1970: 2.1 compares with the time of day, and calls nobody until
    // a clock that was set back has come to where it was.
    event.next_s = -event.now_s;
    event.next_ms = -(event.now_ns / 1_000_000);
    guard("TICK", || loaded.plugin.tick(), || abi::SUCCESS)
}
