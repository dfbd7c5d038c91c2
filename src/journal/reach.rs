//! What a link keeps of its past, as the one column of JSON every back end has for it: nobody queries inside.
//! Unknown fields of a later version are an error, not a guess: what was sent already must not be misread.
use super::Error;
use crate::link::{Existing, Reach, Scope, Since};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use storage_engine::feed::Cursor;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    covered: Option<Scope>,
    #[serde(default)]
    since: Option<KeptSince>,
    existing: Option<KeptPass>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptSince {
    at: u64,
    scope: Scope,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remade: Option<u64>,
}

/// Cursors are opaque bytes of some hundred; as numbers they are long and plain.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptPass {
    cursor: Option<Vec<u8>>,
    until: Vec<u8>,
    except: Option<Scope>,
    #[serde(default)]
    compares: bool,
}

/// The column's text.
pub fn to_text(reach: &Reach) -> String {
    let pass = |e: &Existing| KeptPass {
        cursor: e.cursor.as_ref().map(|c| c.0.to_vec()),
        until: e.until.0.to_vec(),
        except: e.except.clone(),
        compares: e.compares,
    };
    let since = reach.since.clone().map(|Since { at, scope, remade }| KeptSince { at, scope, remade });
    let kept = Kept { covered: reach.covered.clone(), since, existing: reach.existing.as_ref().map(pass) };
    serde_json::to_string(&kept).expect("its maps have string keys")
}

/// What the column's text says.
///
/// # Errors
/// [`Error::Unusable`]: it is damaged, or a later version wrote it.
pub fn from_text(text: &str) -> Result<Reach, Error> {
    let kept: Kept = serde_json::from_str(text).map_err(|e| Error::Unusable(format!("reach: {e}")))?;
    let cursor = |bytes: Vec<u8>| Cursor(Bytes::from(bytes));
    let pass = |p: KeptPass| Existing {
        cursor: p.cursor.map(cursor),
        until: cursor(p.until),
        except: p.except,
        compares: p.compares,
    };
    let since = kept.since.map(|KeptSince { at, scope, remade }| Since { at, scope, remade });
    Ok(Reach { covered: kept.covered, since, existing: kept.existing.map(pass) })
}
