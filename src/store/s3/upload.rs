//! An object in parts, cut where its writer cut it, so that its ETag is the same there: begin, parts, end. What is there
//! already the target says; the caller keeps the upload's id and says which part goes next.
use super::dialect::Ask;
use super::error::of;
use super::send::{Bytestream, Terms, content_md5};
use super::{Error, Target, With};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use std::collections::BTreeMap;
use storage_engine::version::{Birth, Part, Version};

/// ETags of the parts that are there, by number.
pub type Parts = BTreeMap<u16, String>;

impl Target {
    /// Begins an upload; returns its id there.
    ///
    /// # Errors
    /// Any [`Error`]; after [`Error::Unreachable`] there may be one that nobody knows of.
    pub async fn begin_upload(&self, version: &Version, birth: &Birth, terms: &Terms) -> Result<String, Error> {
        let mut extra = self.extra(Ask::Initiate, version);
        extra.headers.extend(self.told(version, birth, terms)?);
        let request = self.client.create_multipart_upload().bucket(&self.bucket).key(&version.key);
        let request = request.customize().with(extra);
        let begun = self.limited(0, async { request.send().await.map_err(of) }).await?;
        begun.upload_id().map(str::to_string).ok_or_else(|| Error::Refused("the upload has no id".into()))
    }

    /// Which parts of an upload are there; `None`: there is no such upload any more.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::NotFound`].
    pub async fn parts_of(&self, key: &str, upload_id: &str) -> Result<Option<Parts>, Error> {
        let mut all = Parts::new();
        let mut marker = None;
        loop {
            let request = self.client.list_parts().bucket(&self.bucket).key(key).upload_id(upload_id);
            let request = request.set_part_number_marker(marker);
            let page = match self.limited(0, async { request.send().await.map_err(of) }).await {
                Ok(page) => page,
                Err(Error::NotFound) => return Ok(None),
                Err(e) => return Err(e),
            };
            let part = |p: &aws_sdk_s3::types::Part| {
                let number = u16::try_from(p.part_number()?).ok()?;
                Some((number, p.e_tag()?.trim_matches('"').to_string()))
            };
            all.extend(page.parts().iter().filter_map(part));
            marker = page.next_part_number_marker().map(str::to_string);
            if page.is_truncated() != Some(true) || marker.is_none() {
                return Ok(Some(all));
            }
        }
    }

    /// Sends one part, the next bytes of `body`; returns its ETag there.
    ///
    /// # Errors
    /// Any [`Error`]; sending it again replaces it.
    pub async fn send_part(
        &self,
        version: &Version,
        upload_id: &str,
        part: &Part,
        body: &mut Bytestream,
    ) -> Result<String, Error> {
        let extra = self.extra(Ask::Part, version);
        let length = i64::try_from(part.size_bytes).map_err(|_| Error::Refused("a part is too large".into()))?;
        let request = self.client.upload_part().bucket(&self.bucket).key(&version.key).upload_id(upload_id);
        let request = request.part_number(i32::from(part.number)).content_length(length);
        let request = request.set_content_md5(content_md5(&part.etag));
        let sent = body
            .feed(part.size_bytes, async |bytes| request.body(bytes).customize().with(extra).send().await.map_err(of));
        let sent = self.limited(part.size_bytes, sent).await?;
        Ok(sent.e_tag().unwrap_or_default().trim_matches('"').to_string())
    }

    /// Makes the object of its parts; returns its id there.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::NotFound`]: there is no such upload any more, perhaps because it is over.
    pub async fn end_upload(&self, version: &Version, upload_id: &str, parts: &Parts) -> Result<String, Error> {
        let extra = self.extra(Ask::Complete, version);
        let part = |(number, etag): (&u16, &String)| {
            CompletedPart::builder().part_number(i32::from(*number)).e_tag(format!("\"{etag}\"")).build()
        };
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.iter().map(part).collect())).build();
        let request = self.client.complete_multipart_upload().bucket(&self.bucket).key(&version.key);
        let request = request.upload_id(upload_id).multipart_upload(parts).customize().with(extra);
        // It may put the parts together only now.
        let size = version.birth.as_ref().map_or(0, |b| b.size_bytes);
        let done = self.limited(size, async { request.send().await.map_err(of) }).await?;
        match done.version_id() {
            Some(id) => Ok(id.into()),
            None if self.dialect.keeps_ids() => Ok(self.dialect.remote_id(version.id)),
            None => Err(Error::Refused("it made an object without a version id; is the bucket versioned?".into())),
        }
    }

    /// Gives an upload up; one that is not there is done.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::NotFound`].
    pub async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<(), Error> {
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload_id);
        match self.limited(0, async { request.send().await.map_err(of) }).await {
            Ok(_) | Err(Error::NotFound) => Ok(()),
            Err(e) => Err(e),
        }
    }
}
