//! The limits of the properties that a store keeps for the installation.

use super::StoreError;

/// The maximum length of a property's name in bytes. The name of a segment fits with a prefix.
pub const PROPERTY_NAME_BYTES: usize = 256;
/// The maximum length of a property's value in bytes.
pub const PROPERTY_VALUE_BYTES: usize = 8 << 10;

/// Checks the name and the value of a property, for [`set_property`](super::PairStore::set_property).
///
/// # Errors
///
/// [`StoreError::Rejected`] if the name is empty, if one of them is too long, or contains a control character.
pub fn check_property(name: &str, value: Option<&str>) -> Result<(), StoreError> {
    let value = value.unwrap_or_default();
    let problem = if name.is_empty() {
        "the name of a property is empty".to_owned()
    } else if name.len() > PROPERTY_NAME_BYTES {
        format!("the name of a property is longer than {PROPERTY_NAME_BYTES} bytes")
    } else if value.len() > PROPERTY_VALUE_BYTES {
        format!("the value of a property is longer than {PROPERTY_VALUE_BYTES} bytes")
    } else if name.contains(char::is_control) || value.contains(char::is_control) {
        "a property contains a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(StoreError::Rejected(problem))
}
