//! Detects compression, encoding and format of an input from its first bytes. File names are unreliable, and pipes have
//! none.

use serde::de::IgnoredAny;

use super::columns::Columns;
use crate::cli::args::Format;

/// How an input is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

/// The format of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One JSON object per line.
    Lines,
    /// An array of objects, or objects over several lines.
    JsonValues,
    /// A table with a header, with this byte as the delimiter.
    Table(u8),
}

/// The byte order of UTF-16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Big,
    Little,
}

/// The compression of an input that begins with `head`.
pub(super) fn compression(head: &[u8]) -> Option<Compression> {
    match head {
        [0x1f, 0x8b, ..] => Some(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstd),
        // A skippable frame (RFC 8878, 3.1.2), which parallel compressors write first.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Compression::Zstd),
        _ => None,
    }
}

/// The byte order of an input in UTF-16 with a byte order mark.
pub(super) fn utf16(head: &[u8]) -> Option<ByteOrder> {
    match head {
        [0xff, 0xfe, 0, 0, ..] => None,
        [0xff, 0xfe, ..] => Some(ByteOrder::Little),
        [0xfe, 0xff, ..] => Some(ByteOrder::Big),
        _ => None,
    }
}

/// A description of an unsupported format, and how to convert it.
pub(super) fn foreign(head: &[u8]) -> Option<&'static str> {
    const KNOWN: &[(&[u8], &str)] = &[
        (
            b"PK\x03\x04",
            "a zip archive or an Excel workbook: unpack it, or save it as CSV",
        ),
        (b"\xd0\xcf\x11\xe0", "an Excel workbook: save it as CSV"),
        (b"BZh", "compressed with bzip2: unpack it first (bzcat)"),
        (b"\xfd7zXZ\0", "compressed with xz: unpack it first (xzcat)"),
        (
            b"\x04\x22\x4d\x18",
            "compressed with lz4: unpack it first (lz4cat)",
        ),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
        (b"PAR1", "a Parquet file: convert it to CSV or NDJSON"),
        (b"Obj\x01", "an Avro file: convert it to NDJSON"),
        (b"ORC", "an ORC file: convert it to CSV or NDJSON"),
        (b"SQLite format 3\0", "a SQLite database: export it as CSV"),
        (b"%PDF-", "a PDF"),
        (b"\xff\xfe\0\0", "UTF-32: convert it to UTF-8"),
        (b"\0\0\xfe\xff", "UTF-32: convert it to UTF-8"),
    ];
    let known = KNOWN.iter().find(|(magic, _)| head.starts_with(magic));
    if let Some((_, what)) = known {
        return Some(what);
    }
    let start = &head[..head.len().min(1_024)];
    let nulls = start.iter().filter(|byte| **byte == 0).count();
    if nulls * 4 > start.len() {
        return Some(
            "not text; if it is UTF-16 without a byte order mark, convert it first (iconv -f UTF-16LE -t UTF-8)",
        );
    }
    match text_of(head).first() {
        Some(b'<') => Some("XML or HTML, an error page perhaps: give NDJSON, a JSON array or CSV"),
        _ => None,
    }
}

/// The format of an input that begins with `head`. `named` is the format that the file's name suggests.
pub(super) fn shape(head: &[u8], named: Option<Format>, columns: &Columns) -> Shape {
    let text = text_of(head);
    let first_line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_object = |line: &[u8]| line.trim_ascii_start().starts_with(b"{");
    match text.first() {
        Some(b'[') => return Shape::JsonValues,
        Some(b'{') if is_over_lines(text, first_line) => return Shape::JsonValues,
        Some(b'{') => return Shape::Lines,
        _ => {}
    }
    if let Some(delimiter) = columns.delimiter_of(first_line) {
        return Shape::Table(delimiter);
    }
    if text.split(|byte| *byte == b'\n').any(is_object) {
        return Shape::Lines;
    }
    let is_table = matches!(named, Some(Format::Csv | Format::Tsv)) || columns.delimiter.is_some();
    match is_table || (named.is_none() && columns.has_delimiter(first_line)) {
        true => Shape::Table(columns.likely_delimiter(first_line, named)),
        false => Shape::Lines,
    }
}

/// `head` without leading byte order marks and white space.
fn text_of(head: &[u8]) -> &[u8] {
    let mut text = head.trim_ascii_start();
    while let Some(rest) = text.strip_prefix(b"\xef\xbb\xbf") {
        text = rest.trim_ascii_start();
    }
    text
}

/// Whether the first object of `text` continues after its first line, as in indented JSON.
fn is_over_lines(text: &[u8], first_line: &[u8]) -> bool {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => values.byte_offset() > first_line.len(),
        // The object does not end within `head`.
        Some(Err(error)) => error.is_eof() && matches!(first_line.trim_ascii(), b"{"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::load::columns::TimeColumn;

    fn columns(delimiter: Option<u8>) -> Columns {
        Columns {
            user: "user_id".into(),
            segment: "segment".into(),
            at: TimeColumn::Known,
            delimiter,
        }
    }

    #[test]
    fn shapes_are_told_by_what_is_there() {
        let pretty = "{\n  \"user_id\": 1,\n  \"segment\": \"a\"\n}\n{\n}";
        for (text, shape_of_it) in [
            ("{\"user_id\":1}\n{\"user_id\":2}", Shape::Lines),
            ("\u{feff}\n {\"user_id\":1}", Shape::Lines),
            ("{\"user_id\":1, broken\n{\"user_id\":2}", Shape::Lines),
            ("garbage\n{\"user_id\":2}", Shape::Lines),
            ("garbage", Shape::Lines),
            ("", Shape::Lines),
            ("[{\"user_id\":1}]", Shape::JsonValues),
            (" [\n", Shape::JsonValues),
            (pretty, Shape::JsonValues),
            ("{\n  \"user_id\": 1", Shape::JsonValues),
            ("user_id,segment,at\n", Shape::Table(b',')),
            ("\u{feff}user_id;segment\n", Shape::Table(b';')),
            ("at\tuser_id\tsegment\r\nx", Shape::Table(b'\t')),
            ("\"user_id\"|\"segment\"", Shape::Table(b'|')),
            ("who;what;when", Shape::Table(b';')),
        ] {
            assert_eq!(
                shape(text.as_bytes(), None, &columns(None)),
                shape_of_it,
                "{text}"
            );
        }
        let named = |text: &str, name| shape(text.as_bytes(), Some(name), &columns(None));
        assert_eq!(named("who what", Format::Csv), Shape::Table(b','));
        assert_eq!(named("who", Format::Tsv), Shape::Table(b'\t'));
        assert_eq!(named("{\"user_id\":1}", Format::Csv), Shape::Lines);
        let colon = shape(b"who:what", None, &columns(Some(b':')));
        assert_eq!(colon, Shape::Table(b':'));
    }

    #[test]
    fn foreign_files_are_named() {
        for (head, part) in [
            (&b"PK\x03\x04rest"[..], "zip"),
            (b"BZh91AY", "bzip2"),
            (b"PAR1\x15", "Parquet"),
            (b"{\0\"\0u\0s\0e\0r\0", "UTF-16"),
            (b"\xff\xfe\0\0{\0\0\0", "UTF-32"),
            (b"<html>", "HTML"),
            (b"\xef\xbb\xbf<?xml", "XML"),
        ] {
            assert!(
                foreign(head).is_some_and(|what| what.contains(part)),
                "{part}"
            );
        }
        for head in [&b""[..], b"{}", b"a,b", b"BZ,h", b"xxxx\0"] {
            assert_eq!(foreign(head), None);
        }
    }
}
