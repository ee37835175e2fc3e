use std::sync::Arc;
use std::time::Duration;

use super::kinds::{Counter, Counters, FloatGauge, Gauges, area, set_total};
use crate::version::{COMMIT, VERSION};

area! {
    /// The program itself: its build, its panics, its clock.
    pub struct Runtime {
        build_info: Gauges<2> = "build_info",
            "Version and commit of the running build; always 1", ["version", "commit"];
        panics: Counter = "panics",
            "Panics in any thread, including request handlers and background tasks; each is a defect";
        task_panics: Counters<1> = "task_panics",
            "Panics of background tasks, by task; the task is restarted, and each is a defect", ["task"];
        component_up: Gauges<1> = "component_up",
            "Whether a component of /readyz worked when it was last checked: 1, or 0", ["component"];
        component_age: Gauges<1> = "component_age_seconds",
            "Time since the component was checked", ["component"];
        pub clock_ahead: FloatGauge = "clock_ahead_seconds",
            "How far the clock used for counts is ahead of the system clock; above 0 the system clock is wrong, or was";
    }
}

impl Runtime {
    /// Counts panics of background tasks, by task.
    pub fn panic_counter(&self) -> Arc<dyn Fn(&'static str, u64) + Send + Sync> {
        let panics = self.task_panics.clone();
        Arc::new(move |task, more| {
            panics.with([task]).inc_by(more);
        })
    }

    /// Sets the components of `/readyz`, each with whether it works and the time since it was checked. Others are no longer
    /// rendered.
    pub fn components(&self, states: impl IntoIterator<Item = (&'static str, bool, Duration)>) {
        self.component_up.clear();
        self.component_age.clear();
        for (name, is_up, age) in states {
            self.component_up.with([name]).set(u64::from(is_up));
            self.component_age.with([name]).set(age.as_secs());
        }
    }

    pub(super) fn update(&self) {
        self.build_info.with([VERSION, COMMIT]).set(1);
        set_total(&self.panics, crate::panics::count());
    }
}
