//! What a link's brake does, as the one column of JSON every back end has for it: nobody queries inside.
use super::Error;
use crate::link::KeptBrake;

/// The column's text.
pub fn to_text(brake: &KeptBrake) -> String {
    serde_json::to_string(brake).expect("its maps have string keys")
}

/// What the column's text says.
///
/// # Errors
/// [`Error::Unusable`]: it is damaged.
pub fn from_text(text: &str) -> Result<KeptBrake, Error> {
    serde_json::from_str(text).map_err(|e| Error::Unusable(format!("brake: {e}")))
}
