//! Lists of properties in the broker's memory.
//!
//! The plugin API of Mosquitto 2.0 has functions to make such lists, but promises none to read them (2.1 does), and
//! those that exist copy every text. So they are read where they stand. That the memory looks as it is believed to
//! is proved at the start, with a list that the broker's own functions make: see [`readable`].

use std::ffi::c_int;
use std::ptr;
use std::{slice, str};

use super::{abi, c_string};
use crate::message::Property;

/// A list of ours, until the broker takes it.
pub(super) struct List(*mut abi::Property);

impl List {
    /// A list with copies of `properties`.
    pub(super) fn of<'a>(properties: impl IntoIterator<Item = Property<'a>>) -> Result<Self, c_int> {
        let mut list = Self(ptr::null_mut());
        for property in properties {
            match list.add(property) {
                abi::SUCCESS => {}
                code => return Err(code),
            }
        }
        Ok(list)
    }

    pub(super) fn as_ptr(&self) -> *mut abi::Property {
        self.0
    }

    /// The broker has taken it.
    pub(super) fn taken(mut self) {
        self.0 = ptr::null_mut();
    }

    fn add(&mut self, property: Property<'_>) -> c_int {
        let list = &raw mut self.0;
        // SAFETY: `list` is null or a list of the broker's; strings and bytes outlive the calls, which copy them.
        unsafe {
            match property {
                Property::PayloadFormat(format) => {
                    abi::mosquitto_property_add_byte(list, abi::PROP_PAYLOAD_FORMAT, format)
                }
                Property::MessageExpiry(seconds) => {
                    abi::mosquitto_property_add_int32(list, abi::PROP_MESSAGE_EXPIRY, seconds)
                }
                Property::ContentType(text) => {
                    let text = c_string(text);
                    abi::mosquitto_property_add_string(list, abi::PROP_CONTENT_TYPE, text.as_ptr())
                }
                Property::ResponseTopic(topic) => {
                    let topic = c_string(topic);
                    abi::mosquitto_property_add_string(list, abi::PROP_RESPONSE_TOPIC, topic.as_ptr())
                }
                Property::CorrelationData(data) => {
                    let Ok(length) = u16::try_from(data.len()) else {
                        return abi::ERR_INVAL;
                    };
                    let start = data.as_ptr().cast();
                    abi::mosquitto_property_add_binary(list, abi::PROP_CORRELATION_DATA, start, length)
                }
                Property::User(name, value) => {
                    let (name, value) = (c_string(name), c_string(value));
                    abi::mosquitto_property_add_string_pair(
                        list,
                        abi::PROP_USER,
                        name.as_ptr(),
                        value.as_ptr(),
                    )
                }
            }
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the list is ours until the broker takes it, and then it is null here.
            unsafe { abi::mosquitto_property_free_all(&raw mut self.0) };
        }
    }
}

/// What travels with a message of the list that begins at `first`.
///
/// # Safety
///
/// `first` is null or a list of the broker's that nobody changes during `'a`; its memory looks as [`abi::Property`]
/// says.
pub(super) unsafe fn read<'a>(first: *const abi::Property) -> impl Iterator<Item = Property<'a>> {
    let mut next = first;
    let step = move || {
        // SAFETY: by the contract of this function.
        let property = unsafe { next.as_ref() }?;
        next = property.next;
        Some(property)
    };
    // SAFETY: by the contract of this function.
    std::iter::from_fn(step).filter_map(|property| unsafe { value(property) })
}

/// # Safety
///
/// As for [`read`].
unsafe fn value<'a>(property: &'a abi::Property) -> Option<Property<'a>> {
    // SAFETY: the identifier says which of the values it is.
    let data = |text: &abi::PropertyText| unsafe {
        if text.start.is_null() {
            &[]
        } else {
            slice::from_raw_parts::<'a>(text.start, text.length.into())
        }
    };
    let text = |text: &abi::PropertyText| str::from_utf8(data(text)).ok();
    // SAFETY: as above.
    unsafe {
        Some(match property.identifier {
            abi::PROP_PAYLOAD_FORMAT => Property::PayloadFormat(property.value.byte),
            abi::PROP_MESSAGE_EXPIRY => Property::MessageExpiry(property.value.int32),
            abi::PROP_CONTENT_TYPE => Property::ContentType(text(&property.value.text)?),
            abi::PROP_RESPONSE_TOPIC => Property::ResponseTopic(text(&property.value.text)?),
            abi::PROP_CORRELATION_DATA => Property::CorrelationData(data(&property.value.text)),
            abi::PROP_USER => Property::User(text(&property.name)?, text(&property.value.text)?),
            _ => return None,
        })
    }
}

/// Whether lists of properties look in this broker's memory as it is believed here.
pub fn readable() -> bool {
    let sample = [
        Property::PayloadFormat(1),
        Property::MessageExpiry(70_000),
        Property::ContentType("text/plain"),
        Property::ResponseTopic("answer/here"),
        Property::CorrelationData(&[0, 255, 1]),
        Property::User("first", "ö"),
        Property::User("second", ""),
    ];
    let Ok(list) = List::of(sample) else {
        return false;
    };
    // SAFETY: the list is ours. Were its memory laid out in another way, the identifiers would most likely be none
    // that is read, and pointers would stand where the broker has pointers: the fields that are believed to be
    // pointers were so in every version.
    let read = unsafe { read(list.as_ptr()) };
    read.eq(sample)
}
