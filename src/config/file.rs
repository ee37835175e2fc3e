//! The settings file, which is flat TOML, and files that hold one secret.

use std::io::Read;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::layers::{Layers, Origin};

/// Adds the layer of a settings file.
pub(super) fn add(layers: &mut Layers, path: &Path) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File {
        path: path.to_owned(),
        problem: error.to_string(),
    })?;
    add_text(layers, path, &text)
}

/// Adds the layer of the settings file at `path` with the content `text`.
pub(super) fn add_text(layers: &mut Layers, path: &Path, text: &str) -> Result<(), ConfigError> {
    let broken = |problem: String| ConfigError::File {
        path: path.to_owned(),
        problem,
    };
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        broken(format!("line {line}: {}", error.message()))
    })?;
    // In the order of the file, so that the first mistake is reported.
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let line = line_of(text, key.span().start);
        let Some(flat) = flat_text(value.get_ref()) else {
            return Err(broken(format!(
                "line {line}: `{}` is a table or holds one: settings are flat, `name = value`",
                key.get_ref()
            )));
        };
        let origin = Origin::File(path.to_owned(), line);
        layers.set(key.get_ref(), &flat, origin, str::to_owned)?;
    }
    Ok(())
}

/// A value as the string that a variable would hold. Lists become comma-separated; tables are `None`.
fn flat_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(|number| number.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Datetime(instant) => Some(instant.to_string()),
        DeValue::Array(items) => {
            let texts: Option<Vec<_>> = items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::Array(_) => None,
                    flat => flat_text(flat),
                })
                .collect();
            Some(texts?.join(","))
        }
        DeValue::Table(_) => None,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Reads the secret from a file, without the final line end. The error completes "the file, which ...".
pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    // A key is one line. A much larger file was named by mistake, and may be an endless device.
    const MOST: u64 = 64 * 1024;
    let cannot = |error: std::io::Error| format!("can't be read: {error}");
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(MOST + 1).read_to_end(&mut text).map_err(cannot)?;
    if text.len() as u64 > MOST {
        return Err(format!(
            "has more than {MOST} bytes: give a file that holds only the secret"
        ));
    }
    let text = String::from_utf8(text).map_err(|_| "is not UTF-8 text".to_owned())?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text {
        "" => Err("is empty".into()),
        text => Ok(text.to_owned()),
    }
}
