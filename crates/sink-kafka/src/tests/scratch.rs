use super::*;
#[tokio::test(flavor = "multi_thread")]
async fn scratch() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "bench", 6, &[("cleanup.policy", "compact")]).await;
    let sink = connect(bootstrap, &[]).await;
    confirm(&sink, &records(&topic, "k", 0..10)).await;
    for round in 0..6 {
        let mut batch = records(&topic, "k", 0..200);
        if round < 4 { batch[100].key = None; }
        let t = Instant::now();
        let (_, reasons) = settle(&sink, &batch).await;
        eprintln!("round {round}: {:?}, {} retries {:?}", t.elapsed(), reasons.len(), reasons.first());
    }
    let batch = records(&topic, "k", 0..200);
    let t = Instant::now();
    for _ in 0..20 { confirm(&sink, &batch).await; }
    eprintln!("one by one: {:.0} rec/s", 4000.0 / t.elapsed().as_secs_f64());
}
