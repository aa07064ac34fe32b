//! The page about checking shows what is printed.

use viaduct_testkit::kafka::{self, KafkaBroker};

use crate::kit::bridge::Site;
use crate::kit::page::Page;
use crate::kit::vendor::{Vendor, settings};

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_checking_is_right() {
    let broker = tokio::task::block_in_place(KafkaBroker::start_own);
    kafka::create_topic(broker.bootstrap(), "via.engagementCenter", 3, &[]).await.unwrap();
    let vendor = Vendor::start(settings()).await;
    // The columns of the page fit ports of five digits.
    assert_eq!(broker.bootstrap().len(), "127.0.0.1:19092".len());
    let page = Page::read("checking.md")
        .with("http://127.0.0.1:8900", &vendor.0.url())
        .with("127.0.0.1:19092", broker.bootstrap());
    let site = Site::new(page.of("toml")[0].text());
    for block in page.of("console") {
        tokio::task::block_in_place(|| block.run_in(&site.path("")));
    }
    let report = vendor.report();
    assert_eq!(report.sessions_created, report.sessions_deleted);
}
