//! `headcount setup` for InfluxDB: creates the organisation, both buckets and, on request, tokens.
//!
//! Every step checks first and creates only what is missing. If a concurrent set-up creates it in between, the step counts
//! as done. So a set-up is idempotent, and two may run at the same time.

use std::time::Duration;

use influxdb2::Client;
use influxdb2::api::authorizations::{CreateAuthorizationRequest, ListAuthorizationsRequest};
use influxdb2::api::buckets::ListBucketsRequest;
use influxdb2::api::organization::ListOrganizationRequest;
use influxdb2::models::permission::{Action, Permission};
use influxdb2::models::resource::{Resource, Type};
use influxdb2::models::retention_rule::{RetentionRule, Type as RuleType};
use influxdb2::models::{Bucket, PostBucketRequest};
use reqwest::Method;
use serde_json::json;

use super::InfluxStore;
use super::driver::{call, connect};
use super::error::Error;
use super::options::InfluxOptions;
use super::server::{Server, refusal, send};
use domain::Timestamp;
use domain::store::{Change, IssuedToken, PairStore, SetUp, Step, StoreError};

/// The retention of trend points: a year and a month.
pub(super) const TREND_SECONDS: u64 = 400 * DAY;
/// The minimum retention that the server accepts. Counts over a shorter window are still exact, because queries state
/// their range.
const LEAST_RETENTION: u64 = HOUR;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// The roles of issued tokens: `service` may read and write, `reader` may only read.
pub const TOKEN_ROLES: [&str; 2] = ["service", "reader"];

/// Creates whatever is missing for `options`. The token must have the permissions for that.
///
/// With `issue_tokens`, it also issues one token for each of [`TOKEN_ROLES`], unless a token with the same description
/// exists.
pub async fn set_up(options: &InfluxOptions, issue_tokens: bool) -> Result<SetUp, StoreError> {
    let setup = Setup {
        driver: connect(options)?,
        server: Server::new(options)?,
        options,
    };
    if call(setup.driver.is_onboarding_allowed()).await? {
        return Err(StoreError::Unavailable(
            "InfluxDB is not initialised and has no user yet: run `influx setup`, then `headcount setup` again"
                .into(),
        ));
    }
    let (org_id, org) = setup.org().await?;
    let (bucket_id, bucket) = setup
        .bucket(&org_id, &options.bucket, retention_of(options))
        .await?;
    let (trend_id, trend_bucket) = setup
        .bucket(&org_id, &options.trend_bucket, TREND_SECONDS)
        .await?;
    let mut tokens = Vec::new();
    if issue_tokens {
        tokens = setup.tokens(&org_id, [&bucket_id, &trend_id]).await?;
    }
    let (installation, warnings) = in_buckets(options).await?;
    let step = |kind: &str, name: &str, change| Step {
        what: format!("{kind} {name:?}"),
        change,
    };
    Ok(SetUp {
        steps: vec![
            step("organisation", &options.org, org),
            step("bucket", &options.bucket, bucket),
            step("bucket", &options.trend_bucket, trend_bucket),
            step(
                "the installation's key in",
                &options.trend_bucket,
                installation,
            ),
        ],
        tokens,
        warnings,
    })
}

/// The retention of the bucket of the pairs, in seconds.
fn retention_of(options: &InfluxOptions) -> u64 {
    options.frame.full_window().seconds().max(LEAST_RETENTION)
}

/// The shard length of the bucket of the pairs.
pub(super) fn shard_of(options: &InfluxOptions) -> Duration {
    shard_length(retention_of(options))
}

/// Creates the installation's record, and finds the points that other programs wrote into the buckets.
async fn in_buckets(options: &InfluxOptions) -> Result<(Change, Vec<String>), StoreError> {
    let store = InfluxStore::open(options.clone())?;
    let done = async {
        let installation = store.set_up().await?;
        Ok((installation, store.strangers(Timestamp::now()).await?))
    };
    let done = done.await;
    store.close().await?;
    done
}

struct Setup<'a> {
    driver: Client,
    server: Server,
    options: &'a InfluxOptions,
}

impl Setup<'_> {
    /// The organisation's id.
    async fn org(&self) -> Result<(String, Change), StoreError> {
        if let Some(id) = self.find_org().await? {
            return Ok((id, Change::Unchanged));
        }
        // The driver can't create organisations.
        let body = json!({"name": self.options.org});
        let made = self.post_json(Method::POST, "api/v2/orgs", &body).await;
        match self.find_org().await? {
            Some(id) => Ok((id, Change::Created)),
            None => Err(match made {
                Err(error) => error.into(),
                Ok(()) => missing("the organisation", &self.options.org),
            }),
        }
    }

    async fn find_org(&self) -> Result<Option<String>, Error> {
        let wanted = ListOrganizationRequest {
            org: Some(self.options.org.clone()),
            ..ListOrganizationRequest::default()
        };
        let found = match call(self.driver.list_organizations(wanted)).await {
            Ok(found) => found.orgs,
            Err(Error::Status(response)) if response.status == 404 => Vec::new(),
            Err(error) => return Err(error),
        };
        let found = found.into_iter().find(|org| org.name == self.options.org);
        Ok(found.and_then(|org| org.id))
    }

    /// Creates the bucket, or changes its retention to exactly this one. Returns its id.
    async fn bucket(
        &self,
        org_id: &str,
        name: &str,
        seconds: u64,
    ) -> Result<(String, Change), StoreError> {
        let rule = retention(seconds)?;
        let mut change = Change::Unchanged;
        let mut found = self.find_bucket(org_id, name).await?;
        if found.is_none() {
            let mut wanted = PostBucketRequest::new(org_id.to_owned(), name.to_owned());
            wanted.retention_rules = vec![rule];
            let made = call(self.driver.create_bucket(Some(wanted))).await;
            found = self.find_bucket(org_id, name).await?;
            if let (None, Err(error)) = (&found, made) {
                return Err(error.into());
            }
            change = Change::Created;
        }
        let Some(Bucket {
            id: Some(id),
            retention_rules,
            ..
        }) = found
        else {
            return Err(missing("the bucket", name));
        };
        if retention_rules != [rule] {
            self.change_retention(&id, rule).await?;
            change = Change::Updated;
        }
        Ok((id, change))
    }

    async fn find_bucket(&self, org_id: &str, name: &str) -> Result<Option<Bucket>, Error> {
        let wanted = ListBucketsRequest {
            name: Some(name.to_owned()),
            org_id: Some(org_id.to_owned()),
            ..ListBucketsRequest::default()
        };
        match call(self.driver.list_buckets(Some(wanted))).await {
            Ok(found) => Ok(found.buckets.into_iter().find(|bucket| bucket.name == name)),
            Err(Error::Status(response)) if response.status == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes a bucket's retention. The driver can't change buckets.
    async fn change_retention(&self, id: &str, rule: RetentionRule) -> Result<(), Error> {
        let body = json!({"retentionRules": [rule]});
        self.post_json(Method::PATCH, &format!("api/v2/buckets/{id}"), &body)
            .await
    }

    async fn tokens(
        &self,
        org_id: &str,
        buckets: [&str; 2],
    ) -> Result<Vec<IssuedToken>, StoreError> {
        let name = &self.options.bucket;
        let [service, reader] = TOKEN_ROLES;
        let wanted = [
            (service, &[Action::Read, Action::Write][..]),
            (reader, &[Action::Read][..]),
        ];
        let listed = ListAuthorizationsRequest {
            org_id: Some(org_id.to_owned()),
            ..ListAuthorizationsRequest::default()
        };
        let known = call(self.driver.list_authorizations(listed))
            .await?
            .authorizations;
        let mut issued = Vec::new();
        for (role, actions) in wanted {
            let purpose = format!("headcount: {role} of bucket {name}");
            if known
                .iter()
                .any(|token| token.description.as_ref() == Some(&purpose))
            {
                continue;
            }
            let permissions = buckets.iter().flat_map(|bucket| {
                actions
                    .iter()
                    .map(|action| permission(*action, org_id, bucket))
            });
            let request = CreateAuthorizationRequest {
                description: Some(purpose.clone()),
                org_id: org_id.to_owned(),
                permissions: permissions.collect(),
                ..CreateAuthorizationRequest::default()
            };
            let made = call(self.driver.create_authorization(request)).await?;
            let Some(token) = made.token else {
                return Err(missing("the token", &purpose));
            };
            issued.push(IssuedToken {
                role,
                purpose,
                token,
            });
        }
        Ok(issued)
    }

    async fn post_json(
        &self,
        method: Method,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<(), Error> {
        let request = self.server.request(method, path).json(body);
        let response = send(request, Duration::from_secs(20)).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(refusal(response).await)
    }
}

/// A retention rule with the shard group duration that the server would choose itself. It is explicit, so that it changes
/// along with the retention.
fn retention(seconds: u64) -> Result<RetentionRule, StoreError> {
    let too_long = |_| StoreError::Rejected("window is too long for a bucket's retention".into());
    let mut rule = RetentionRule::new(RuleType::Expire, i32::try_from(seconds).map_err(too_long)?);
    rule.shard_group_duration_seconds = i64::try_from(shard_length(seconds).as_secs()).ok();
    Ok(rule)
}

/// The shard length for a retention in seconds: an hour for less than two days, a day for less than half a year, otherwise
/// a week.
pub(super) fn shard_length(retention: u64) -> Duration {
    Duration::from_secs(match retention {
        0..172_800 => HOUR,
        172_800..15_552_000 => DAY,
        _ => 7 * DAY,
    })
}

fn permission(action: Action, org_id: &str, bucket_id: &str) -> Permission {
    let mut bucket = Resource::new(Type::Buckets);
    bucket.id = Some(bucket_id.to_owned());
    bucket.org_id = Some(org_id.to_owned());
    Permission::new(action, bucket)
}

fn missing(what: &str, name: &str) -> StoreError {
    StoreError::Unavailable(format!(
        "InfluxDB: {what} {name:?} was created, but is not listed"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_groups_fit_the_retention() {
        let rule = |seconds| {
            let rule = retention(seconds).unwrap();
            (
                rule.every_seconds,
                rule.shard_group_duration_seconds.unwrap(),
            )
        };
        assert_eq!(rule(3_600), (3_600, 3_600));
        assert_eq!(rule(14 * DAY), (1_209_600, 86_400));
        assert_eq!(rule(TREND_SECONDS), (34_560_000, 604_800));
        assert!(retention(1 << 40).is_err());
    }
}
