//! Names that settings files, dashboards and alerts use.

use headcount::config::SETTINGS;

use super::text;
use crate::support::app::App;

#[test]
fn setting_names_and_defaults_are_unchanged() {
    let now: String = SETTINGS
        .iter()
        .map(|setting| format!("{} = {:?}\n", setting.name, setting.default))
        .collect();
    assert_eq!(now, text("settings.txt", &now));
}

#[tokio::test(flavor = "multi_thread")]
async fn metric_names_and_types_are_unchanged() {
    let app = App::start().await;
    let body = r#"{"user_id": "u", "segment": "s"}"#;
    assert_eq!(app.post("application/json", body).await.status, 200);
    let text_of = async |path| app.get(path).await.text;
    let metrics = text_of("/metrics").await + &text_of("/metrics/segments").await;
    let mut kinds: Vec<String> = metrics
        .lines()
        .filter(|line| line.starts_with("# TYPE "))
        .map(|line| format!("{line}\n"))
        .collect();
    kinds.sort();
    let now = kinds.concat();
    assert_eq!(now, text("metrics.txt", &now));
}
