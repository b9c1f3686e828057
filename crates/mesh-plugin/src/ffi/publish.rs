//! Publishing in the broker's name. It leaves at the next turn of the broker's loop, and nothing is called back
//! from here.

use std::ffi::{CStr, c_int};
use std::ptr;

use super::properties::List;
use super::{abi, c_string};
use crate::message::Publish;

/// Publishes a retained message at QoS 0, without properties.
pub fn publish_retained(topic: &str, payload: &str) -> Result<(), c_int> {
    let message = Publish {
        topic,
        payload: payload.as_bytes(),
        qos: 0,
        retain: true,
        properties: Vec::new(),
    };
    publish(&message)
}

/// Publishes a message to all subscribers here.
pub fn publish(message: &Publish<'_>) -> Result<(), c_int> {
    send(None, message)
}

/// Puts a message into the queue of one client, whether it has subscribed or not; the flag to keep it is lost. If
/// there is no such client when it leaves, the message is dropped.
pub fn publish_to(client_id: &CStr, message: &Publish<'_>) -> Result<(), c_int> {
    send(Some(client_id), message)
}

fn send(to: Option<&CStr>, message: &Publish<'_>) -> Result<(), c_int> {
    let topic = c_string(message.topic);
    let length = c_int::try_from(message.payload.len()).map_err(|_| abi::ERR_INVAL)?;
    let list = List::of(message.properties.iter().copied())?;
    // SAFETY: all pointers outlive the call, which copies what they point to, but for the list, which it takes if
    // it succeeds. A null client id means everyone.
    let code = unsafe {
        abi::mosquitto_broker_publish_copy(
            to.map_or(ptr::null(), CStr::as_ptr),
            topic.as_ptr(),
            length,
            message.payload.as_ptr().cast(),
            message.qos.into(),
            message.retain,
            list.as_ptr(),
        )
    };
    if code != abi::SUCCESS {
        return Err(code);
    }
    list.taken();
    Ok(())
}
