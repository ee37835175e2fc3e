//! Segments of acknowledged pairs are noted in the cache: at once, once a minute, and after an outage of the cache.

use std::sync::Arc;
use std::time::Duration;

use domain::cache::CountCache;
use domain::{Batch, BatchBuilder, Slot, UserId};
use engine::ingest::SegmentNotes;
use supervisor::Supervisor;
use tokio::time::sleep;

use crate::support::rig::name;
use crate::support::shared_cache::SharedCache;

fn notes() -> (Arc<SharedCache>, SegmentNotes, Supervisor) {
    let cache = Arc::<SharedCache>::default();
    let supervisor = Supervisor::new(Arc::new(|_, _| ()));
    let notes = SegmentNotes::start(cache.clone(), &supervisor);
    (cache, notes, supervisor)
}

fn batch(segments: &[&str]) -> Batch {
    let mut batch = BatchBuilder::default();
    let user = UserId::new("u").unwrap();
    for segment in segments {
        batch.push_pair(&user, segment, Slot::new(1)).unwrap();
    }
    batch.finish()
}

#[tokio::test(start_paused = true)]
async fn a_segment_is_noted_once_a_minute_and_a_new_one_at_once() {
    let (cache, notes, _supervisor) = notes();
    for _ in 0..3 {
        notes.note(&batch(&["a"])).await;
    }
    assert!(cache.knows(&name("a")).await.unwrap());
    assert_eq!(cache.notes(), 1);
    notes.note(&batch(&["a", "b"])).await;
    assert!(cache.knows(&name("b")).await.unwrap());
    assert_eq!(cache.notes(), 2);
    sleep(Duration::from_mins(1)).await;
    notes.note(&batch(&["a", "b"])).await;
    assert_eq!(cache.notes(), 3);
}

#[tokio::test(start_paused = true)]
async fn notes_wait_for_a_cache_that_is_unavailable_and_requests_do_not() {
    let (cache, notes, _supervisor) = notes();
    cache.set_unavailable(true);
    notes.note(&batch(&["a"])).await;
    let tried = cache.notes();
    for _ in 0..3 {
        notes.note(&batch(&["a"])).await;
    }
    assert_eq!(cache.notes(), tried, "only the task retries");
    sleep(Duration::from_mins(5)).await;
    assert!(cache.notes() > tried);
    cache.set_unavailable(false);
    sleep(Duration::from_millis(200)).await;
    assert!(cache.knows(&name("a")).await.unwrap());
    let sent = cache.notes();
    sleep(Duration::from_secs(30)).await;
    assert_eq!(cache.notes(), sent, "nothing is owed any more");
}
