//! `headcount check-config`.

use serde::Serialize;

use super::Failure;
use super::args::CheckConfigArgs;
use super::output::{note, print, print_json};
use super::variables::Variables;
use crate::config::Shown;

#[derive(Serialize)]
struct Document<'a> {
    settings: &'a [Shown],
}

pub(super) fn run(args: CheckConfigArgs, variables: Variables) -> Result<(), Failure> {
    let loaded = args.settings.load(variables.into_vec())?;
    if let Err(error) = loaded.may_serve() {
        // Not an error: the settings are valid for the other commands.
        note(&format!(
            "warning: `headcount serve` would not start: {error}"
        ));
    }
    let shown = loaded.shown;
    match args.json {
        true => print_json(&Document { settings: &shown }),
        false => print(&table(&shown)),
    }
}

fn table(rows: &[Shown]) -> String {
    let width = |text: fn(&Shown) -> &str| rows.iter().map(|row| text(row).chars().count()).max();
    let name = width(|row| row.name).unwrap_or(0).max("SETTING".len());
    let value = width(|row| &row.value).unwrap_or(0).max("VALUE".len());
    let mut text = format!("{:name$}  {:value$}  FROM\n", "SETTING", "VALUE");
    for row in rows {
        text += &format!("{:name$}  {:value$}  {}\n", row.name, row.value, row.origin);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |name, value: &str, origin: &str| Shown {
            name,
            value: value.into(),
            origin: origin.into(),
        };
        assert_eq!(
            table(&[
                row("listen", "127.0.0.1:8080", "default"),
                row("log", "info", "HEADCOUNT_LOG")
            ]),
            "SETTING  VALUE           FROM\n\
             listen   127.0.0.1:8080  default\n\
             log      info            HEADCOUNT_LOG\n"
        );
    }
}
