//! The files that are generated from the table, and sample files.

use super::*;

/// `HEADCOUNT_TEST_WRITE_DOCS=1` regenerates the table.
#[test]
fn the_page_of_settings_has_each_with_its_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/settings.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (head, _) = page.split_once("<!-- settings -->").unwrap();
    let rows: Vec<_> = SETTINGS.iter().map(page_row).collect();
    let rows = rows.join("\n");
    let whole = format!(
        "{head}<!-- settings -->\n| Setting | Default | Range | What it is |\n|---|---|---|---|\n{rows}\n"
    );
    if std::env::var_os("HEADCOUNT_TEST_WRITE_DOCS").is_some() {
        std::fs::write(path, &whole).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), whole);
}

/// `HEADCOUNT_TEST_WRITE_DOCS=1` regenerates the file.
#[test]
fn the_example_file_names_each_setting_with_its_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/headcount.example.toml");
    let mut whole = String::from(
        "# All settings of headcount with their defaults. Copy this file to headcount.toml, or name your copy with --config,\n\
         # and remove the # where you want another value. HEADCOUNT_* variables and flags override the file.\n",
    );
    let mut group = "";
    for setting in SETTINGS {
        if setting.group != group {
            group = setting.group;
            whole += &format!("\n# --- {group} ---\n");
        }
        whole += &format!("\n{}", example_entry(setting));
    }
    if std::env::var_os("HEADCOUNT_TEST_WRITE_DOCS").is_some() {
        std::fs::write(path, &whole).unwrap();
    }
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text, whole);
    // The commented-out values must be valid as well.
    let all: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' ') && !line.ends_with("= \"\""))
        .collect();
    let loaded = loaded(Some(&all.join("\n")), &[], &[]);
    let defaults = Settings::with([]).unwrap();
    assert_eq!(format!("{:?}", loaded.settings), format!("{defaults:?}"));
}

fn page_row(setting: &Setting) -> String {
    let default = match setting.default {
        "" => "-".to_owned(),
        text => format!("`{text}`"),
    };
    let range = setting.range().unwrap_or_default();
    format!(
        "| `{}` | {default} | {range} | {} |",
        setting.name, setting.help
    )
}

fn example_entry(setting: &Setting) -> String {
    let Setting {
        name,
        default,
        help,
        ..
    } = setting;
    let range = setting.range().map(|range| format!(" (range: {range})"));
    let range = range.unwrap_or_default();
    format!("# {help}{range}\n#{name} = \"{default}\"\n")
}

#[test]
fn every_sample_file_is_valid() {
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir()
                && !name.starts_with('.')
                && !["target", "src"].contains(&name.as_str())
            {
                folders.push(path);
            } else if name.starts_with("headcount") && name.ends_with(".toml") {
                let file = Some(path);
                load(Sources {
                    file,
                    ..Sources::default()
                })
                .unwrap();
            }
        }
    }
}
