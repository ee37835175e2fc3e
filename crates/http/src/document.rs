//! Documents that are returned as JSON or CSV, with an entity tag.

use std::hash::Hash;

use serde::Serialize;
use warp::http::header::{
    CONTENT_DISPOSITION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, VARY,
};
use warp::reply::{Reply, Response};

use super::covered::CoveredFields;
use super::entity_tag::{self, AS_OF};
use super::path;
use super::problem::Problem;
use super::reply::json;
use super::representation::Representation;
use domain::Timestamp;

/// A document that is returned as JSON or CSV. Its hash covers what a client acts on, and not instants or ages of counts:
/// the entity tag is computed from it.
pub(super) trait Document: Serialize + Hash {
    /// The header row of the CSV.
    const COLUMNS: &'static [&'static str];

    /// The rows of the CSV: tuples of the columns' values.
    fn rows(&self) -> impl Iterator<Item: Serialize>;

    /// The name of a CSV file, without its extension.
    fn file_name(&self) -> String;

    /// Since when its numbers are complete; JSON has it in the document, and CSV in headers.
    fn covered(&self) -> Option<CoveredFields> {
        None
    }

    /// The earliest instant at which a number of the document was exact.
    fn as_of(&self) -> Option<Timestamp> {
        None
    }
}

/// Headers of a response, with those that are added to it later: they need one allocation.
const ALL_HEADERS: usize = 12;

/// 200 with `document`, and the headers for a conditional request.
pub(super) fn tagged(
    document: &impl Document,
    representation: Representation,
) -> Result<Response, Problem> {
    let mut response = untagged(document, representation)?;
    let headers = response.headers_mut();
    headers.reserve(ALL_HEADERS);
    if let Some(tag) = entity_tag::of(&(representation, document)) {
        headers.insert(ETAG, tag);
    }
    if let Some(as_of) = document.as_of() {
        insert(headers, AS_OF, as_of.to_string());
    }
    Ok(response)
}

/// 200 with `document`.
pub(super) fn untagged<D: Document>(
    document: &D,
    representation: Representation,
) -> Result<Response, Problem> {
    let mut response = match representation {
        Representation::Json => json(document),
        Representation::Csv => {
            let mut response = csv_file(&document.file_name(), D::COLUMNS, document.rows())?;
            if let Some(covered) = document.covered() {
                covered.insert_into(response.headers_mut());
            }
            response
        }
    };
    let accept = HeaderValue::from_static("accept");
    response.headers_mut().insert(VARY, accept);
    Ok(response)
}

/// 200 with a CSV file. `name` is without the extension.
pub(super) fn csv_file(
    name: &str,
    columns: impl IntoIterator<Item: AsRef<[u8]>>,
    rows: impl Iterator<Item: Serialize>,
) -> Result<Response, Problem> {
    let body = csv(columns, rows).map_err(|error| Problem::internal().caused_by(&error))?;
    let mut response = warp::http::Response::new(body).into_response();
    let kind = HeaderValue::from_static(Representation::Csv.content_type());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    insert(headers, CONTENT_DISPOSITION, disposition(name));
    Ok(response)
}

/// CSV as RFC 4180 defines it: a header row, lines that end with CR and LF, quotes where a value needs them.
fn csv(
    columns: impl IntoIterator<Item: AsRef<[u8]>>,
    rows: impl Iterator<Item: Serialize>,
) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::WriterBuilder::new()
        .has_headers(false)
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    writer.write_record(columns)?;
    for row in rows {
        writer.serialize(row)?;
    }
    let written = writer.into_inner();
    written.map_err(|error| csv::Error::from(error.into_error()))
}

/// The `Content-Disposition` of a file (RFC 6266): the name itself, and one in ASCII for old clients.
fn disposition(name: &str) -> String {
    // Characters that a file system or a shell gives a meaning, and that a name of a segment may have.
    let safe = |letter: char| match letter {
        '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '%' => '_',
        letter => letter,
    };
    let name: String = name.chars().map(safe).collect();
    let plain: String = name
        .chars()
        .map(|letter| match letter {
            ' '..='~' => letter,
            _ => '_',
        })
        .collect();
    let encoded = path::encode(&name);
    format!("attachment; filename=\"{plain}.csv\"; filename*=UTF-8''{encoded}.csv")
}

/// Inserts a header. A value that can't be in a header is left out: none of ours is one.
pub(super) fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    #[test]
    fn values_are_quoted_where_they_need_it() {
        let columns = ["segment", "users"];
        let names = ["a", "a,b", "say \"hi\"", "=1+1", "Ünited 🏀", " x"];
        let rows = names.iter().map(|name| (name, None::<u64>));
        assert_eq!(
            String::from_utf8(csv(columns, rows).unwrap()).unwrap(),
            "segment,users\r\na,\r\n\"a,b\",\r\n\"say \"\"hi\"\"\",\r\n=1+1,\r\nÜnited 🏀,\r\n x,\r\n"
        );
        let none = iter::empty::<(&str, u64)>();
        assert_eq!(csv(columns, none).unwrap(), b"segment,users\r\n");
    }

    #[test]
    fn file_names_have_no_path_and_no_quotes() {
        for (name, expected) in [
            (
                "segments",
                "filename=\"segments.csv\"; filename*=UTF-8''segments.csv",
            ),
            (
                "count-../a\"b\\",
                "filename=\"count-.._a_b_.csv\"; filename*=UTF-8''count-.._a_b_.csv",
            ),
            (
                "trend-Ünited 🏀",
                "filename=\"trend-_nited _.csv\"; filename*=UTF-8''trend-%C3%9Cnited%20%F0%9F%8F%80.csv",
            ),
        ] {
            let disposition = disposition(name);
            assert_eq!(disposition, format!("attachment; {expected}"));
            assert!(HeaderValue::try_from(disposition).is_ok());
        }
    }
}
