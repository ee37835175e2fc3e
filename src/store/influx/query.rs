//! Flux over HTTP: an answer is believed only when it came to its proper end.

use std::io::{self, Read};
use std::time::Duration;

use futures::TryStreamExt;
use reqwest::Method;
use serde_json::json;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::error::{Error, root_cause};
use super::framing::Framing;
use super::server::{Server, refusal, send};
use crate::domain::Timestamp;

/// A row of an answer, with the names of its columns.
#[derive(Debug)]
pub(super) struct Row<'a> {
    header: &'a csv::StringRecord,
    record: &'a csv::StringRecord,
}

impl Row<'_> {
    /// The value in the column of this name.
    pub(super) fn get(&self, column: &str) -> Result<&str, Error> {
        let index = self.header.iter().position(|name| name == column);
        index
            .and_then(|index| self.record.get(index))
            .ok_or_else(|| Error::Nonsense(format!("it lacks the column {column}")))
    }

    /// The number in the column of this name.
    pub(super) fn number(&self, column: &str) -> Result<u64, Error> {
        let value = self.get(column)?;
        value
            .parse()
            .map_err(|_| Error::Nonsense(format!("{column} is no number")))
    }

    /// The instant in the column of this name.
    pub(super) fn time(&self, column: &str) -> Result<Timestamp, Error> {
        let value = self.get(column)?;
        value
            .parse()
            .map_err(|_| Error::Nonsense(format!("{column} is no time")))
    }

    /// The same instant in nanoseconds since 1970.
    pub(super) fn nanos(&self, column: &str) -> Result<i64, Error> {
        let nanos = self.time(column)?.as_nanosecond();
        i64::try_from(nanos).map_err(|_| Error::Nonsense(format!("{column} is out of range")))
    }
}

/// Runs `flux` and returns what `read` makes of each row.
///
/// No rows is an answer; an answer that breaks off, ends in an error, or lacks its end is an error, never
/// fewer rows.
pub(super) async fn rows<T: Send + 'static>(
    server: &Server,
    flux: &str,
    within: Duration,
    read: impl FnMut(&Row<'_>) -> Result<T, Error> + Send + 'static,
) -> Result<Vec<T>, Error> {
    match tokio::time::timeout(within, rows_to_end(server, flux, within, read)).await {
        Ok(rows) => rows,
        Err(_) => Err(Error::TimedOut(within)),
    }
}

async fn rows_to_end<T: Send + 'static>(
    server: &Server,
    flux: &str,
    within: Duration,
    read: impl FnMut(&Row<'_>) -> Result<T, Error> + Send + 'static,
) -> Result<Vec<T>, Error> {
    let body = json!({
        "query": flux,
        "type": "flux",
        "dialect": {"header": true, "delimiter": ",", "annotations": ["datatype"]},
    });
    let request = server.org_request(Method::POST, "api/v2/query").json(&body);
    let response = send(request, within).await?;
    if response.status().as_u16() != 200 {
        return Err(refusal(response).await);
    }
    let chunks = response
        .bytes_stream()
        .map_err(|error| io::Error::other(root_cause(&error)));
    let bridge = SyncIoBridge::new(StreamReader::new(chunks));
    // The csv crate reads from blocking readers. A thread of its own also turns a panic into an error.
    let parsed = tokio::task::spawn_blocking(move || parse(bridge, read)).await;
    parsed.map_err(|_| Error::Panicked)?
}

/// Reads annotated CSV from its first to its last byte.
pub(super) fn parse<T>(
    body: impl Read,
    mut read: impl FnMut(&Row<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let framing = Framing::new();
    let mut body = Watched { body, framing };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(&mut body);
    let mut rows = Vec::new();
    let mut header: Option<csv::StringRecord> = None;
    // As many columns as the annotations above a header have.
    let mut annotated = None;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(csv_error)? {
        if record.get(0).is_some_and(|first| first.starts_with('#')) {
            let above = annotated.replace(record.len());
            if above.is_some_and(|columns| columns != record.len()) {
                return Err(Error::Nonsense("annotations that do not fit".into()));
            }
        } else if is_error_header(&record) {
            // The message below this header may echo values: it is not read.
            return Err(Error::BrokenAnswer("the query failed on its way".into()));
        } else if let Some(columns) = annotated.take() {
            if columns != record.len() || has_twice(&record) {
                return Err(Error::Nonsense("a header that does not fit".into()));
            }
            header = Some(record.clone());
        } else {
            let Some(header) = &header else {
                return Err(Error::Nonsense("a row before any header".into()));
            };
            if record.len() != header.len() {
                return Err(Error::Nonsense(
                    "a row of another length than its header".into(),
                ));
            }
            rows.push(read(&Row {
                header,
                record: &record,
            })?);
        }
    }
    drop(reader);
    let whole = body.framing.end();
    whole.map_err(|wrong| Error::BrokenAnswer(wrong.into()))?;
    Ok(rows)
}

/// Whether two columns have the same name.
fn has_twice(header: &csv::StringRecord) -> bool {
    let mut names = header.iter().enumerate();
    names.any(|(place, name)| header.iter().take(place).any(|other| other == name))
}

/// An error after the first byte of an answer arrives as a last table, under status 200.
fn is_error_header(record: &csv::StringRecord) -> bool {
    let cells: Vec<&str> = record.iter().take(3).collect();
    matches!(
        cells[..],
        ["error", "reference", ..] | ["", "error", "reference"]
    )
}

fn csv_error(error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Error::BrokenAnswer(error.to_string()),
        csv::ErrorKind::Utf8 { .. } => Error::Nonsense("it is not UTF-8".into()),
        _ => Error::Nonsense("it is no CSV".into()),
    }
}

/// Has the form of a body checked while it is read.
struct Watched<R> {
    body: R,
    framing: Framing,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.body.read(buffer)?;
        self.framing.take(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "#datatype,string,long,string,long\r\n,result,table,segment,_value\r\n\
                        ,_result,0,\"a,\"\"b\",3\r\n,_result,1,c,4\r\n\r\n";

    fn numbers(body: &[u8]) -> Result<Vec<u64>, Error> {
        parse(body, |row| row.number("_value"))
    }

    #[test]
    fn reads_rows_by_name() {
        assert_eq!(numbers(GOOD.as_bytes()).unwrap(), [3, 4]);
        let names = parse(GOOD.as_bytes(), |row| Ok(row.get("segment")?.to_owned())).unwrap();
        assert_eq!(names, ["a,\"b", "c"]);
        let two = format!("{GOOD}{}", GOOD.replace("segment", "other"));
        assert_eq!(numbers(two.as_bytes()).unwrap(), [3, 4, 3, 4]);
    }

    #[test]
    fn an_empty_answer_is_no_rows() {
        assert_eq!(numbers(b"\r\n").unwrap().len(), 0);
    }

    #[test]
    fn every_cut_is_an_error() {
        for end in 0..GOOD.len() {
            assert!(
                numbers(&GOOD.as_bytes()[..end]).is_err(),
                "cut after {end} bytes"
            );
        }
    }

    #[test]
    fn an_error_table_after_rows_is_an_error() {
        let annotated = "#datatype,string,string\r\n,error,reference\r\n,\"it broke\",\r\n\r\n";
        let bare = "error,reference\r\n\"it broke\",897\r\n\r\n";
        for tail in [annotated, bare] {
            let error = numbers(format!("{GOOD}{tail}").as_bytes()).unwrap_err();
            assert!(matches!(error, Error::BrokenAnswer(_)), "{error}");
            assert!(numbers(tail.as_bytes()).is_err());
        }
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic() {
        let garbage: &[&[u8]] = &[
            b"",
            b"\n",
            b"hello",
            b"<html></html>\r\n\r\n",
            b"#datatype\r\n,_value\r\n,1,2\r\n\r\n",
            b"#datatype\r\n,_value\r\n,x\r\n\r\n",
            b"#datatype\r\n,_value\r\n,-1\r\n\r\n",
            b"#datatype\r\n,_value\r\n\r\n",
            b"#\r\n#datatype,long\r\n,_value\r\n,1\r\n\r\n",
            b"#datatype,long\r\n,_value,_value\r\n,1,2\r\n\r\n",
            b"#datatype,long,long\r\n,_value,_value\r\n,1,2\r\n\r\n",
            b"#datatype\r\n,other\r\n,1\r\n\r\n",
            b"\xff\xfe\r\n\r\n",
            b"\"\"\"\"\"\r\n\r\n",
        ];
        for body in garbage {
            assert!(numbers(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_are_never_a_panic(body: Vec<u8>) {
            drop(numbers(&body));
        }
    }
}
