//! The hash tag: the part of a key that determines its node in a cluster.

use domain::Segment;

/// `segment` as a hash tag, without the enclosing braces. A hash tag ends at the first closing brace, so braces in the
/// name are percent-encoded. The percent sign is encoded too, so that no two segments share a tag.
pub(crate) fn hash_tag(segment: &Segment) -> String {
    let mut tag = String::with_capacity(segment.as_str().len());
    for char in segment.as_str().chars() {
        match char {
            '{' => tag.push_str("%7B"),
            '}' => tag.push_str("%7D"),
            '%' => tag.push_str("%25"),
            other => tag.push(other),
        }
    }
    tag
}
