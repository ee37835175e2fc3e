//! headcount embedded in another program, without HTTP: `cargo run --example embed [DIRECTORY]`.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::time::Duration;

use headcount::Headcount;
use headcount::config::Settings;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "headcount-data".to_owned());
    let headcount = Headcount::open(&Settings::with([("data_dir", directory.as_str())])?).await?;

    // Durable when `record` returns.
    headcount
        .record([
            ("u1", "sports"),
            ("u2", "sports"),
            ("u1", "sports"),
            ("u1", "news"),
        ])
        .await?;

    let today = Duration::from_secs(24 * 3600);
    println!("sports, two weeks: {}", headcount.estimate("sports").await?);
    println!(
        "sports, one day:   {}",
        headcount.estimate_over("sports", today).await?
    );
    println!("news, two weeks:   {}", headcount.estimate("news").await?);
    println!(
        "unknown:           {}",
        headcount.estimate("unknown").await?
    );

    headcount.shut_down().await?;
    Ok(())
}
