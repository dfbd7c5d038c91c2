//! The form of a bucket document that did not come in by this front door: another site wrote it, and what is kept must be
//! what a client here could have set. Called by whoever takes documents of other sites; it keeps nothing.
use crate::bucket::document::Kind;
use crate::s3::text::from_xml;
use crate::s3::{cors, lifecycle, tag, text};
use s3s::{S3Error, S3Result};

/// Whether the text of a document is one that a client could have set here.
///
/// # Errors
/// S3's word and sentence on what is wrong.
pub fn check_document(kind: Kind, document: &str) -> Result<(), String> {
    let said = |e: S3Error| format!("{}: {}", e.code().as_str(), e.message().unwrap_or("it is refused"));
    // The codec calls a kept document that does not read an error of its own.
    let unread = |_| "MalformedXML: it is not the XML of its schema".to_string();
    match kind {
        Kind::Tags => tags(document).map_err(said),
        Kind::Cors => cors::check(&from_xml(document).map_err(unread)?).map_err(said),
        Kind::Lifecycle => lifecycle::check(&from_xml(document).map_err(unread)?).map_err(said),
        Kind::Policy => Err("a policy never comes from another site".into()),
    }
}

fn tags(document: &str) -> S3Result<()> {
    let set = text::tags(document).ok_or_else(|| s3s::s3_error!(InvalidTag, "The tags are no set of pairs."))?;
    tag::within_limits(set, tag::BUCKET_TAGS_MAX).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_client_could_have_set_is_refused_by_name() {
        let cors = |method: &str| {
            format!(
                "<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>{method}</AllowedMethod>\
                 </CORSRule></CORSConfiguration>"
            )
        };
        let lifecycle = |days: &str| {
            format!(
                "<LifecycleConfiguration><Rule><ID>a</ID><Filter><Prefix>x</Prefix></Filter><Status>Enabled</Status>\
                 <Expiration><Days>{days}</Days></Expiration></Rule></LifecycleConfiguration>"
            )
        };
        assert_eq!(check_document(Kind::Tags, "a=b&c=d%20e"), Ok(()));
        assert_eq!(check_document(Kind::Cors, &cors("GET")), Ok(()));
        assert_eq!(check_document(Kind::Lifecycle, &lifecycle("3")), Ok(()));
        for (kind, text, code) in [
            (Kind::Tags, "a=1&a=2".to_string(), "InvalidTag"),
            (Kind::Tags, format!("{}=v", "k".repeat(129)), "InvalidTag"),
            (Kind::Tags, (0..51).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join("&"), "BadRequest"),
            (Kind::Cors, "<CORSConfiguration/>".into(), "MalformedXML"),
            (Kind::Cors, "not XML at all".into(), "MalformedXML"),
            (Kind::Cors, cors("PATCH"), "InvalidRequest"),
            (Kind::Cors, lifecycle("3"), "MalformedXML"),
            (Kind::Lifecycle, lifecycle("0"), "InvalidArgument"),
            (Kind::Lifecycle, "{}".into(), "MalformedXML"),
            (Kind::Policy, "{}".into(), "a policy"),
        ] {
            let refused = check_document(kind, &text).expect_err(&text);
            assert!(refused.starts_with(code), "{text}: {refused}");
        }
    }
}
