//! The value of a key that keeps a name, VNI or subnet for one network.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::wire::{DecodeError, Record, fields_of, parse};

/// Who has claimed the key.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct ClaimRecord {
    /// Identifier of the network.
    pub(crate) network: String,
    /// Its name.
    pub(crate) name: String,
}

impl Record for ClaimRecord {
    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        parse(value)
    }

    fn fields(&self) -> Map<String, Value> {
        fields_of(self)
    }
}
