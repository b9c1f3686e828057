//! The query language: every text is a query or an error with a place in that text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_store::Query;

fuzz_target!(|text: &str| {
    if let Err(error) = text.parse::<Query>() {
        assert!(error.at + error.length <= text.chars().count() + 1);
        error.pointed(text);
    }
});
