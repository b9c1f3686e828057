//! A plugin that allows everyone everything, for tests: loaded ahead of mesh-plugin it takes every question away
//! from it, which mesh-plugin must notice. With `plugin_opt_auth no` it leaves logins alone and answers only
//! ACL checks; with `plugin_opt_acl no` it is the other way round.
#![allow(unsafe_code, missing_docs)]

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

#[allow(dead_code, unreachable_pub)]
#[path = "../src/ffi/abi.rs"]
mod abi;

unsafe extern "C" fn allow(_: c_int, _: *mut c_void, _: *mut c_void) -> c_int {
    abi::SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn mosquitto_plugin_version(_: c_int, _: *const c_int) -> c_int {
    abi::PLUGIN_VERSION
}

/// # Safety
///
/// Called by the broker: `opts` points to `count` options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mosquitto_plugin_init(
    id: *mut abi::PluginId,
    _: *mut *mut c_void,
    opts: *mut abi::Opt,
    count: c_int,
) -> c_int {
    let option = |at: usize| {
        // SAFETY: `at` is below `count`, and the strings of an option end with a zero.
        unsafe {
            (
                CStr::from_ptr((*opts.add(at)).key),
                CStr::from_ptr((*opts.add(at)).value),
            )
        }
    };
    let count = usize::try_from(count).unwrap_or(0);
    let answers = |what: &CStr| !(0..count).any(|at| option(at) == (what, c"no"));
    let register = |event| {
        // SAFETY: `id` is the broker's, and the callback needs no data.
        unsafe { abi::mosquitto_callback_register(id, event, allow, ptr::null(), ptr::null_mut()) }
    };
    if answers(c"auth") {
        register(abi::EVT_BASIC_AUTH);
    }
    if answers(c"acl") {
        register(abi::EVT_ACL_CHECK);
    }
    abi::SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn mosquitto_plugin_cleanup(_: *mut c_void, _: *mut abi::Opt, _: c_int) -> c_int {
    abi::SUCCESS
}
