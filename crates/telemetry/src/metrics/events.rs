use super::kinds::{Counter, Gauge, area};

area! {
    /// The stream of events.
    pub struct Events {
        pub clients: Gauge = "event_clients", "Clients connected to the event stream";
        pub changes: Counter = "events", "Changes of counts sent to the event stream";
        pub resets: Counter = "event_resets",
            "Times that a client missed events and had to read all counts again";
    }
}
