//! Flux over HTTP. A response is accepted only if it is complete.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::json;

use super::error::{Error, root_cause};
use super::framing::Framing;
use super::server::{Server, refusal, send};
use domain::Timestamp;

/// The maximum size of a response that is collected in memory: some million short rows. [`QueryResponse`] streams longer
/// ones.
const MAX_BYTES: usize = 256 * 1024 * 1024;
/// The maximum size of a row. Names have up to a few hundred bytes.
const MAX_RECORD_BYTES: usize = 1024 * 1024;
/// The size of the blocks that are parsed at a time. A CSV reader is made for each, which costs as much as some hundred rows.
const BLOCK_BYTES: usize = 64 * 1024;

/// A row of a response, with its column names.
#[derive(Debug)]
pub(super) struct Row<'a> {
    header: &'a csv::StringRecord,
    record: &'a csv::StringRecord,
}

impl Row<'_> {
    /// The value of a column.
    pub(super) fn get(&self, column: &str) -> Result<&str, Error> {
        let index = self.header.iter().position(|name| name == column);
        index
            .and_then(|index| self.record.get(index))
            .ok_or_else(|| Error::InvalidResponse(format!("it lacks the column {column}")))
    }

    /// The value of a column as a non-negative integer.
    pub(super) fn number(&self, column: &str) -> Result<u64, Error> {
        let value = self.get(column)?;
        value
            .parse()
            .map_err(|_| Error::InvalidResponse(format!("{column} is not a number")))
    }

    /// The value of a column as a timestamp.
    pub(super) fn time(&self, column: &str) -> Result<Timestamp, Error> {
        let value = self.get(column)?;
        value
            .parse()
            .map_err(|_| Error::InvalidResponse(format!("{column} is not a timestamp")))
    }

    /// The value of a column as a timestamp, in nanoseconds since 1970.
    pub(super) fn nanos(&self, column: &str) -> Result<i64, Error> {
        let nanos = self.time(column)?.as_nanosecond();
        i64::try_from(nanos)
            .map_err(|_| Error::InvalidResponse(format!("{column} is out of range")))
    }
}

/// Runs `flux` and returns the rows, each parsed by `read`.
///
/// A response without rows is valid. A response that breaks off, ends in an error, or lacks its end is an error, never
/// fewer rows. Rows are parsed as they arrive, on the caller's task: a body that stalls holds a connection until the
/// deadline, but no thread.
pub(super) async fn rows<T>(
    server: &Server,
    flux: &str,
    within: Duration,
    read: impl FnMut(&Row<'_>) -> Result<T, Error> + Send,
) -> Result<Vec<T>, Error> {
    let all = async {
        let mut response = QueryResponse::run(server, flux, within, read).await?;
        let mut rows = Vec::new();
        while response.next(&mut rows).await? {
            if response.bytes > MAX_BYTES {
                return Err(Error::TooLarge(MAX_BYTES));
            }
        }
        Ok(rows)
    };
    match tokio::time::timeout(within, all).await {
        Ok(rows) => rows,
        Err(_) => Err(Error::TimedOut(within)),
    }
}

/// A response that is parsed while it arrives.
pub(super) struct QueryResponse<F> {
    response: Response,
    parser: Parser<F>,
    /// The timeout of each further chunk.
    within: Duration,
    bytes: usize,
}

impl<T, F: FnMut(&Row<'_>) -> Result<T, Error>> QueryResponse<F> {
    /// Runs `flux`. `within` is the timeout of the response's head, and of each further chunk.
    pub(super) async fn run(
        server: &Server,
        flux: &str,
        within: Duration,
        read: F,
    ) -> Result<Self, Error> {
        let body = json!({
            "query": flux,
            "type": "flux",
            "dialect": {"header": true, "delimiter": ",", "annotations": ["datatype"]},
        });
        let request = server.org_request(Method::POST, "api/v2/query").json(&body);
        let response = send(request, within).await?;
        if response.status().as_u16() != 200 {
            let refused = tokio::time::timeout(within, refusal(response)).await;
            return Err(refused.unwrap_or(Error::TimedOut(within)));
        }
        Ok(Self {
            response,
            parser: Parser::new(read),
            within,
            bytes: 0,
        })
    }

    /// Appends the rows of the next chunk to `rows`. Returns `false` at the end of a complete response. If the response
    /// turns out to be incomplete, the rows so far are valid, but others are missing.
    pub(super) async fn next(&mut self, rows: &mut Vec<T>) -> Result<bool, Error> {
        let chunk = match tokio::time::timeout(self.within, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| Error::BrokenResponse(root_cause(&error)))?,
            Err(_) => return Err(Error::TimedOut(self.within)),
        };
        let Some(chunk) = chunk else {
            self.parser.end(rows)?;
            return Ok(false);
        };
        self.bytes += chunk.len();
        self.parser.take(&chunk, rows)?;
        Ok(true)
    }
}

/// Parses a complete annotated CSV response.
#[cfg(test)]
pub(super) fn parse<T>(
    body: &[u8],
    read: impl FnMut(&Row<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut parser = Parser::new(read);
    let mut rows = Vec::new();
    // In several pieces, like chunks from the network.
    for piece in body.chunks(body.len() / 3 + 1) {
        parser.take(piece, &mut rows)?;
    }
    parser.end(&mut rows)?;
    Ok(rows)
}

/// An incremental parser of annotated CSV, which accepts pieces of any length.
struct Parser<F> {
    framing: Framing,
    /// What is not parsed yet.
    text: Vec<u8>,
    /// The end of the last complete record in it.
    whole: usize,
    header: Option<csv::StringRecord>,
    /// The number of columns in the annotations above the next header.
    annotated: Option<usize>,
    read: F,
}

impl<F> Parser<F> {
    fn new(read: F) -> Self {
        Self {
            framing: Framing::new(),
            text: Vec::new(),
            whole: 0,
            header: None,
            annotated: None,
            read,
        }
    }

    /// Parses the rest, and checks that the response may end here.
    fn end<T>(&mut self, rows: &mut Vec<T>) -> Result<(), Error>
    where
        F: FnMut(&Row<'_>) -> Result<T, Error>,
    {
        self.parse(rows)?;
        let whole = self.framing.end();
        whole.map_err(|wrong| Error::BrokenResponse(wrong.into()))
    }

    fn take<T>(&mut self, piece: &[u8], rows: &mut Vec<T>) -> Result<(), Error>
    where
        F: FnMut(&Row<'_>) -> Result<T, Error>,
    {
        let whole = self.framing.take(piece);
        let whole = whole.map_err(|wrong| Error::BrokenResponse(wrong.into()))?;
        if whole > 0 {
            self.whole = self.text.len() + whole;
        }
        self.text.extend_from_slice(piece);
        if self.text.len() - self.whole > MAX_RECORD_BYTES {
            return Err(Error::InvalidResponse("a row that is too long".into()));
        }
        if self.whole >= BLOCK_BYTES {
            self.parse(rows)?;
        }
        Ok(())
    }

    /// Parses the complete records.
    fn parse<T>(&mut self, rows: &mut Vec<T>) -> Result<(), Error>
    where
        F: FnMut(&Row<'_>) -> Result<T, Error>,
    {
        let mut text = std::mem::take(&mut self.text);
        let whole = std::mem::take(&mut self.whole);
        self.records(text.get(..whole).unwrap_or_default(), rows)?;
        text.drain(..whole);
        self.text = text;
        Ok(())
    }

    /// Parses complete records.
    fn records<T>(&mut self, text: &[u8], rows: &mut Vec<T>) -> Result<(), Error>
    where
        F: FnMut(&Row<'_>) -> Result<T, Error>,
    {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(text);
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(csv_error)? {
            if record.get(0).is_some_and(|first| first.starts_with('#')) {
                let above = self.annotated.replace(record.len());
                if above.is_some_and(|columns| columns != record.len()) {
                    return Err(Error::InvalidResponse(
                        "annotations of different lengths".into(),
                    ));
                }
            } else if is_error_header(&record) {
                // The message in the next row may echo values, so it is not read.
                return Err(Error::BrokenResponse(
                    "the query failed while its response was streaming".into(),
                ));
            } else if let Some(columns) = self.annotated.take() {
                if columns != record.len() || has_twice(&record) {
                    return Err(Error::InvalidResponse(
                        "a header that does not match its annotations".into(),
                    ));
                }
                self.header = Some(record.clone());
            } else {
                let Some(header) = &self.header else {
                    return Err(Error::InvalidResponse("a row before any header".into()));
                };
                if record.len() != header.len() {
                    return Err(Error::InvalidResponse(
                        "a row of another length than its header".into(),
                    ));
                }
                rows.push((self.read)(&Row {
                    header,
                    record: &record,
                })?);
            }
        }
        Ok(())
    }
}

/// Whether two columns have the same name.
fn has_twice(header: &csv::StringRecord) -> bool {
    let mut names = header.iter().enumerate();
    names.any(|(place, name)| header.iter().take(place).any(|other| other == name))
}

/// Whether the record is the header of an error table. An error after the response has started arrives as a last table,
/// with status 200.
fn is_error_header(record: &csv::StringRecord) -> bool {
    let cells: Vec<&str> = record.iter().take(3).collect();
    matches!(
        cells[..],
        ["error", "reference", ..] | ["", "error", "reference"]
    )
}

fn csv_error(error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Error::BrokenResponse(error.to_string()),
        csv::ErrorKind::Utf8 { .. } => Error::InvalidResponse("it is not UTF-8".into()),
        _ => Error::InvalidResponse("it is not CSV".into()),
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
            assert!(matches!(error, Error::BrokenResponse(_)), "{error}");
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
