use super::kinds::{Counter, Counters, Gauge, Gauges, area};

area! {
    /// Tokens, and requests that they do not allow.
    pub struct Auth {
        pub refusals: Counters<1> = "auth_refusals",
            "Requests refused because their token is missing, invalid or insufficient, by reason", ["reason"];
        pub limited: Counters<1> = "auth_limited",
            "Requests over a rate limit of their token, by what is limited: requests or pairs", ["what"];
        pub tokens: Gauge = "tokens", "Tokens in the tokens file";
        pub tokens_file_errors: Counter = "tokens_file_errors",
            "Changes of the tokens file that could not be loaded";
        pub file_broken: Gauges<1> = "auth_file_broken",
            "1 while a file of tokens or keys is invalid and its last valid content stays in use, by setting", ["file"];
    }
}
