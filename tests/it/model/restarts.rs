//! Restarts of instances, on the files of the previous run.

use super::checks::promise;
use super::instance::Instance;
use super::world::World;

impl World {
    pub async fn crash(&mut self, at: usize) {
        let left = self.fresh_folder();
        self.ends(at);
        self.instances[at].kill(&left);
        self.release_of(at);
        self.abandon(at);
        self.instances[at] = Instance::start(&self.shared, left).await;
    }

    pub async fn restart(&mut self, at: usize) -> Result<(), String> {
        self.instances[at].restore();
        self.ends(at);
        self.release_of(at);
        // Requests are drained before the service is shut down. A refresh that could not reach the cache retries twice, after
        // half a second each, and each round is at least a millisecond.
        for _ in 0..2_000 {
            self.settle().await?;
            if self.running.iter().all(|running| running.call.at != at) {
                break;
            }
        }
        let instance = self.instances.remove(at);
        instance.end().await;
        let spool = instance.spool.clone();
        // This releases the lock of its directory.
        drop(instance);
        let left = self.running.iter().filter(|running| running.call.at == at);
        promise!(
            left.count() == 0,
            "calls outlive a shutdown: {:?}",
            self.running
        );
        self.known.retain(|(of, _, _), _| *of != at);
        let instance = Instance::start(&self.shared, spool).await;
        self.instances.insert(at, instance);
        Ok(())
    }

    fn release_of(&self, at: usize) {
        let instance = &self.instances[at];
        self.release_all(|call| instance.connections().any(|it| it.holds(call)));
    }
}
