//! Questions and answers between hosts.

use std::time::Duration;

use anyhow::{Result, ensure};
use nuncio_registry::AskError;

use crate::backend::{Backend, soon};

on_both!(
    a_question_is_answered_by_the_host_it_is_put_to,
    who_does_not_answer_is_waited_for_only_so_long
);

const PATIENCE: Duration = Duration::from_secs(20);

async fn a_question_is_answered_by_the_host_it_is_put_to(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let answering = backend.registry().await?;
    let answers = tokio::spawn(async move {
        let answer = |question: String| async move { format!("{question}, you say") };
        answering.answer("b", answer).await;
    });
    // Whoever begins to listen hears only of what is asked after that.
    let first = async {
        loop {
            let asked = registry
                .ask("b", "how are you", Duration::from_secs(1))
                .await;
            if let Ok(answer) = asked {
                return answer;
            }
        }
    };
    ensure!(soon("an answer", first).await? == "how are you, you say");
    let (one, two) = tokio::join!(
        registry.ask("b", "one", PATIENCE),
        registry.ask("b", "two", PATIENCE)
    );
    ensure!(one? == "one, you say" && two? == "two, you say");
    let long = "x".repeat(1 << 20);
    let refused = registry.ask("b", &long, PATIENCE).await;
    ensure!(matches!(refused, Err(AskError::TooLong(_))), "{refused:?}");
    answers.abort();
    Ok(())
}

async fn who_does_not_answer_is_waited_for_only_so_long(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let asked = registry
        .ask("nobody", "anybody?", Duration::from_millis(200))
        .await;
    ensure!(matches!(asked, Err(AskError::Silent { .. })), "{asked:?}");
    let asked = registry.ask("a/b", "anybody?", PATIENCE).await;
    ensure!(matches!(asked, Err(AskError::Invalid(_))), "{asked:?}");
    Ok(())
}
