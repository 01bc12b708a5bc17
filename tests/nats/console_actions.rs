//! What users change by the console.

use test_support::{
    raw::{self, RawResponse},
    wait::until,
};

use crate::{
    console::{ACTION_USER, Console, Stage, USER, VIEWER},
    gateway::calls,
};

/// base64 of ada:right and eve:right.
const ADA: (&str, &str) = ("authorization", "Basic YWRhOnJpZ2h0");
const EVE: (&str, &str) = ("authorization", "Basic ZXZlOnJpZ2h0");

/// What a browser says of a form of the same page.
const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");

/// A page with a form, as a user sees it.
struct Form {
    path: String,
    fields: Vec<(String, String)>,
    page: String,
}

impl Form {
    /// Reads the form of a page.
    fn read(page: &str) -> Self {
        let form = page.split("<form class=\"question\"").nth(1).unwrap();
        let form = form.split("</form>").next().unwrap();
        let unescape = |text: &str| text.replace("&quot;", "\"").replace("&amp;", "&");
        let attribute = |text: &str, name: &str| {
            let value =
                text.split(&format!(" {name}=\"")).nth(1).map(|rest| rest.split('"').next());
            value.flatten().map(unescape)
        };
        let fields = form
            .split("<input")
            .skip(1)
            .filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value")?)));
        Self {
            path: attribute(form, "action").unwrap(),
            fields: fields.collect(),
            page: page.to_owned(),
        }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.retain(|(known, _)| known != name);
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends it, as a browser does.
    async fn send(&self, console: &Console, headers: &[(&str, &str)]) -> RawResponse {
        let body = serde_urlencoded::to_string(&self.fields).unwrap();
        let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
        all.extend_from_slice(headers);
        raw::request(console.addr, "POST", &self.path, &all, body.as_bytes()).await
    }
}

impl Console {
    async fn page_for(&self, user: (&str, &str), target: &str) -> RawResponse {
        raw::request(self.addr, "GET", target, &[user], b"").await
    }

    /// Opens a page with a question.
    async fn question(&self, target: &str) -> Form {
        let page = self.page_for(ADA, target).await;
        assert_eq!(page.status, 200, "{target}: {}", page.text());
        Form::read(&page.text())
    }

    /// Answers a question with yes, and returns the page that follows.
    async fn confirm(&self, form: &Form) -> String {
        let sent = form.send(self, &[ADA, SAME_ORIGIN]).await;
        assert_eq!(sent.status, 303, "{}", sent.text());
        self.page_for(ADA, sent.header("location")).await.text()
    }
}

/// A console whose users are ada and eve.
async fn console(stage: &Stage, nats_user: &str, actions: &str) -> Console {
    let file = stage.folder.path().join("users");
    std::fs::write(&file, format!("{VIEWER}{}", VIEWER.replace("ada", "eve"))).unwrap();
    let settings = [("auth_file", file.to_str().unwrap()), ("actions", actions)];
    stage.console_as(nats_user, &settings).await
}

/// Submits calls that fail, and lets all calls run. The queue has so many dead letters then.
async fn let_fail(stage: &Stage, number: usize, letters: u64) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..number {
        ids.push(stage.gateway.submit(&[], "fail").await);
    }
    let _worker = stage.queue.worker(&stage.function, &[("max_retry_attempts", "1")]);
    stage.queue.holds("jobs-dead", letters).await;
    stage.queue.holds("jobs", 0).await;
    ids
}

#[tokio::test]
async fn form_of_another_user_page_or_site_changes_nothing() {
    let stage = Stage::start().await;
    let call = stage.gateway.submit(&[], "hi").await;
    let console = console(&stage, ACTION_USER, "true").await;
    let form = console.question(&format!("/calls/{call}/cancel")).await;
    assert!(form.page.contains("can't be undone"));
    let without = Form { fields: Vec::new(), ..Form::read(&form.page) };
    let other = stage.gateway.submit(&[], "other").await;
    let moved = Form { path: format!("/calls/{other}/cancel"), ..Form::read(&form.page) };
    for (form, headers) in [
        (&form, &[EVE, SAME_ORIGIN][..]),
        (&form, &[ADA, ("sec-fetch-site", "cross-site")]),
        (&form, &[ADA, ("origin", "http://evil.example")]),
        (&without, &[ADA, SAME_ORIGIN]),
        (&moved, &[ADA, SAME_ORIGIN]),
    ] {
        let refused = form.send(&console, headers).await;
        assert_eq!(refused.status, 403, "{headers:?}: {}", refused.text());
        assert!(refused.text().contains("Nothing was changed"), "{}", refused.text());
    }
    assert_eq!(form.send(&console, &[SAME_ORIGIN]).await.status, 401);
    assert_eq!(stage.queue.info("jobs").await.state.messages, 2);
    let log = console.program.log();
    assert!(log.iter().any(|line| line.contains("refused an action") && line.contains("eve")));
    console.confirm(&form).await;
    stage.queue.holds("jobs", 1).await;
}

#[tokio::test]
async fn calls_and_batches_are_cancelled_and_the_log_says_by_whom() {
    let stage = Stage::start().await;
    let call = stage.gateway.submit(&[("x-callback-url", "http://127.0.0.1:9/done")], "hi").await;
    let batch = [r#"{"function":"figlet","body":"a"}"#, r#"{"function":"figlet","body":"b"}"#];
    let headers = [("x-batch-id", "batch-7")];
    let stored = stage.gateway.call("POST", "/async-batch", &headers, batch.join("\n")).await;
    assert_eq!(stored.status, 202, "{}", stored.text());
    let console = console(&stage, ACTION_USER, "true").await;

    let page = console.page_for(ADA, &format!("/calls/{call}")).await.text();
    assert!(page.contains(&format!("/calls/{call}/cancel")), "{page}");
    let form = console.question(&format!("/calls/{call}/cancel")).await;
    let after = console.confirm(&form).await;
    assert!(after.contains("cancelled") && !after.contains("/cancel\""), "{after}");
    stage.queue.holds("jobs-callbacks", 1).await;
    let again = form.send(&console, &[ADA, SAME_ORIGIN]).await;
    assert_eq!(again.status, 409, "{}", again.text());

    let page = console.page_for(ADA, "/batches/batch-7").await.text();
    assert!(page.contains("/batches/batch-7/cancel"), "{page}");
    let after = console.confirm(&console.question("/batches/batch-7/cancel").await).await;
    assert!(after.contains("2 cancelled"), "{after}");
    stage.queue.holds("jobs", 0).await;

    let log = console.program.log().join("\n");
    for target in [format!("call {call}"), "batch batch-7".to_owned()] {
        let line = log.lines().find(|line| line.contains(&target) && line.contains("ada"));
        assert!(line.is_some_and(|line| line.contains("done")), "{target}: {log}");
    }
    assert!(!log.contains("ermissions"), "{log}");
    let metrics = raw::request(console.metrics_addr, "GET", "/metrics", &[], b"").await.text();
    let counted = r#"console_actions_total{action="cancel_batch",outcome="success"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn dead_letters_are_replayed_one_by_one_by_group_and_together() {
    let stage = Stage::start().await;
    let ids = let_fail(&stage, 3, 3).await;
    let console = console(&stage, ACTION_USER, "true").await;
    let page = console.page_for(ADA, &format!("/calls/{}", ids[0])).await.text();
    let sequence = stage.queue.sequence("jobs-dead", 1).await;
    let one = format!("/queues/jobs/dead/replay?sequence={sequence}");
    assert!(page.contains(&one), "{one} in {page}");
    let form = console.question(&one).await;
    assert!(form.page.contains("Replay 1 dead letter of jobs?"), "{}", form.page);
    let after = console.confirm(&form).await;
    assert!(after.contains("<strong>ada</strong> replayed 1 dead letter,"), "{after}");
    stage.queue.holds("jobs-dead", 2).await;
    let waiting = calls(&stage.queue).await;
    assert_eq!(waiting[0].call_id.to_string(), ids[0]);

    // A letter that is stored after the question was asked stays.
    let form = console.question("/queues/jobs/dead/replay").await;
    assert!(form.page.contains("Replay 2 dead letters of jobs?"), "{}", form.page);
    // The replayed one fails again as well.
    let late = let_fail(&stage, 1, 4).await;
    let after = console.confirm(&form).await;
    assert!(after.contains("replayed 2 dead letters,"), "{after}");
    stage.queue.holds("jobs-dead", 2).await;
    assert!(after.contains(&late[0]), "{after}");

    let group =
        after.split("href=\"").find(|link| link.contains("/dead/replay?function=")).unwrap();
    let group = group.split('"').next().unwrap().replace("&amp;", "&");
    let form = console.question(&group).await;
    assert!(form.page.contains("figlet.openfaas-fn"), "{}", form.page);
    console.confirm(&form).await;
    stage.queue.holds("jobs-dead", 0).await;
    stage.queue.holds("jobs", 4).await;
    let log = console.program.log().join("\n");
    assert!(!log.contains("ermissions"), "{log}");
}

#[tokio::test]
async fn many_dead_letters_are_deleted_only_with_the_name_of_the_queue() {
    let stage = Stage::start().await;
    let_fail(&stage, 3, 3).await;
    let console = console(&stage, ACTION_USER, "true").await;
    let sequence = stage.queue.sequence("jobs-dead", 1).await;
    let one = console.question(&format!("/queues/jobs/dead/delete?sequence={sequence}")).await;
    assert!(!one.page.contains("id=\"typed\""), "{}", one.page);
    console.confirm(&one).await;
    stage.queue.holds("jobs-dead", 2).await;
    let form = console.question("/queues/jobs/dead/delete").await;
    assert!(form.page.contains("Delete 2 dead letters of jobs?"), "{}", form.page);
    let refused = form.with("typed", "job").send(&console, &[ADA, SAME_ORIGIN]).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(stage.queue.info("jobs-dead").await.state.messages, 2);
    let form = console.question("/queues/jobs/dead/delete").await.with("typed", "jobs");
    let after = console.confirm(&form).await;
    assert!(after.contains("deleted 2 dead letters,") && after.contains("No dead letters"));
    stage.queue.holds("jobs-dead", 0).await;
    let empty = console.page_for(ADA, "/queues/jobs/dead/delete").await;
    assert_eq!(empty.status, 409, "{}", empty.text());
}

#[tokio::test]
async fn settings_decide_what_may_be_changed() {
    let stage = Stage::start().await;
    let_fail(&stage, 1, 1).await;
    let call = stage.gateway.submit(&[], "hi").await;
    for (actions, text) in [
        ("false", "The console only shows what is there."),
        ("other", "no calls of functions in the namespace openfaas-fn"),
    ] {
        let console = console(&stage, ACTION_USER, actions).await;
        let page = console.page_for(ADA, &format!("/calls/{call}")).await.text();
        assert!(!page.contains("/cancel\""), "{page}");
        let target = format!("/calls/{call}/cancel");
        let refused = console.page_for(ADA, &target).await;
        assert_eq!(refused.status, 403, "{}", refused.text());
        assert!(refused.text().contains(text), "{}", refused.text());
        let sent = raw::request(console.addr, "POST", &target, &[ADA, SAME_ORIGIN], b"").await;
        assert_eq!(sent.status, 403);
        let letters = console.page_for(ADA, "/queues/jobs/dead/replay").await;
        assert!([403, 409].contains(&letters.status), "{}", letters.text());
    }
    let console = console(&stage, ACTION_USER, "openfaas-fn").await;
    console.confirm(&console.question(&format!("/calls/{call}/cancel")).await).await;
    stage.queue.holds("jobs", 0).await;
}

#[tokio::test]
async fn nats_decides_what_a_console_with_actions_can_change() {
    let stage = Stage::start().await;
    let_fail(&stage, 1, 1).await;
    let call = stage.gateway.submit(&[], "hi").await;
    let console = console(&stage, USER, "true").await;
    let form = console.question(&format!("/calls/{call}/cancel")).await;
    let sent = form.send(&console, &[ADA, SAME_ORIGIN]).await;
    assert_eq!(sent.status, 502, "{}", sent.text());
    let form = console.question("/queues/jobs/dead/delete").await.with("typed", "jobs");
    let after = console.confirm(&form).await;
    // NATS does not answer what it refuses, so the page does not wait for the end.
    assert!(after.contains("goes on"), "{after}");
    until("the deletion fails", async || {
        let page = console.page_for(ADA, "/queues/jobs/dead").await.text();
        page.contains("1 failed").then_some(())
    })
    .await;
    assert_eq!(stage.queue.info("jobs").await.state.messages, 1);
    assert_eq!(stage.queue.info("jobs-dead").await.state.messages, 1);
    let log = console.program.log().join("\n");
    assert!(log.contains("ermissions"), "{log}");
}
