//! `headcount segment show`, `set` and `delete`.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Failure;
use super::args::{SegmentCommand, SegmentDeleteArgs, SegmentSetArgs, SegmentShowArgs};
use super::client::{Client, valid};
use super::output::{grouped, print, print_json, sanitized};
use super::variables::Variables;
use domain::text::duration_text;

/// The settings of a segment, as the service returns them.
#[derive(Deserialize)]
struct Settings {
    segment: String,
    window: Option<String>,
    window_seconds: u64,
    description: Option<String>,
    group: Option<String>,
}

/// A receipt.
#[derive(Deserialize)]
struct Receipt {
    #[serde(alias = "users")]
    erased: u64,
    places: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    place: String,
    state: String,
    until: Option<String>,
    note: String,
}

pub(super) async fn run(command: SegmentCommand, variables: &Variables) -> Result<(), Failure> {
    match command {
        SegmentCommand::Show(args) => show(args, variables).await,
        SegmentCommand::Set(args) => set(args, variables).await,
        SegmentCommand::Delete(args) => delete(args, variables).await,
    }
}

async fn show(args: SegmentShowArgs, variables: &Variables) -> Result<(), Failure> {
    let segment = valid(&args.segment)?;
    let client = Client::new(&args.target, variables)?;
    let document = client.on(Method::GET, &segment, &[], None).await?;
    print_settings(&client, &document, args.json)
}

async fn set(args: SegmentSetArgs, variables: &Variables) -> Result<(), Failure> {
    let segment = valid(&args.segment)?;
    let client = Client::new(&args.target, variables)?;
    let held = client.on(Method::GET, &segment, &[], None).await?;
    let held = Settings::deserialize(&held).map_err(|error| client.unexpected(&error))?;
    // What is not given stays; an empty value removes it.
    let chosen = |given: Option<String>, held: Option<String>| match given {
        Some(given) if given.is_empty() => None,
        Some(given) => Some(given),
        None => held,
    };
    let body = json!({
        "window": chosen(args.window, held.window),
        "description": chosen(args.description, held.description),
        "group": chosen(args.group_name, held.group),
    });
    let document = client.on(Method::PUT, &segment, &[], Some(&body)).await?;
    print_settings(&client, &document, args.json)
}

fn print_settings(client: &Client, document: &Value, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return print_json(document);
    }
    let settings = Settings::deserialize(document).map_err(|error| client.unexpected(&error))?;
    print(&table(&settings))
}

fn table(settings: &Settings) -> String {
    let window = duration_text(settings.window_seconds);
    let origin = match settings.window {
        Some(_) => "its own",
        None => "the service's",
    };
    let text = |value: &Option<String>| match value {
        Some(text) => sanitized(text),
        None => "-".to_owned(),
    };
    format!(
        "segment      {}\nwindow       {window} ({origin})\ndescription  {}\ngroup        {}\n",
        sanitized(&settings.segment),
        text(&settings.description),
        text(&settings.group),
    )
}

async fn delete(args: SegmentDeleteArgs, variables: &Variables) -> Result<(), Failure> {
    let segment = valid(&args.segment)?;
    let client = Client::new(&args.target, variables)?;
    let path = match &args.user {
        Some(user) => vec!["users", user.as_str()],
        None => Vec::new(),
    };
    let document = client.on(Method::DELETE, &segment, &path, None).await?;
    if args.json {
        return print_json(&document);
    }
    let receipt = Receipt::deserialize(&document).map_err(|error| client.unexpected(&error))?;
    print(&receipt_text(
        segment.as_str(),
        args.user.is_some(),
        &receipt,
    ))
}

fn receipt_text(segment: &str, is_user: bool, receipt: &Receipt) -> String {
    let users = match receipt.erased {
        1 => "1 user".to_owned(),
        users => format!("{} users", grouped(users)),
    };
    let mut text = match (is_user, receipt.erased) {
        (true, 0) => format!("{segment}: the user was not in it\n"),
        (true, _) => format!("{segment}: the user is erased\n"),
        (false, _) => format!("{segment}: erased, with {users}\n"),
    };
    for place in &receipt.places {
        let until = match &place.until {
            Some(until) => format!(" until {}", sanitized(until)),
            None => String::new(),
        };
        text.push_str(&format!(
            "  {}: {}{until}: {}\n",
            sanitized(&place.place),
            sanitized(&place.state),
            sanitized(&place.note)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_the_settings() {
        let document = json!({
            "segment": "Black Friday", "window": "3d", "window_seconds": 259_200,
            "description": "Visitors\u{1b}[2J", "group": null
        });
        let settings = Settings::deserialize(&document).unwrap();
        assert_eq!(
            table(&settings),
            "segment      Black Friday\nwindow       3d (its own)\n\
             description  Visitors\u{fffd}[2J\ngroup        -\n"
        );
    }

    #[test]
    fn people_read_the_receipt() {
        let receipt = |field: &str, erased: u64| {
            let places =
                json!([{"place": "store", "state": "erased", "until": null, "note": "every pair"}]);
            Receipt::deserialize(json!({field: erased, "places": places})).unwrap()
        };
        assert_eq!(
            receipt_text("s", false, &receipt("users", 1_234)),
            "s: erased, with 1,234 users\n  store: erased: every pair\n"
        );
        let text = receipt_text("s", true, &receipt("erased", 0));
        assert!(text.starts_with("s: the user was not in it\n"), "{text}");
    }
}
