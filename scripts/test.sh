#!/usr/bin/env bash
# Runs all tests: `make test` does so after it has built them. Redis and RabbitMQ are started first. Tests whose data,
# service or program is missing pass without having tested anything; they are counted and named here, before the tests
# in the documentation, so that the output ends with a summary of the test runner.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

addresses=$(scripts/services.sh start)
eval "$addresses"

# elephant_testkit::skip appends a line for each skipped test: its name, a tab, the reason.
ELEPHANT_SKIPPED_TESTS=$(mktemp)
export ELEPHANT_SKIPPED_TESTS
trap 'rm -f "$ELEPHANT_SKIPPED_TESTS"' EXIT

failed=0
cargo test --quiet --workspace --no-fail-fast --tests || failed=1
say "tests skipped, wholly or in part: $(cut -f1 "$ELEPHANT_SKIPPED_TESTS" | sort -u | wc -l)"
sort -u "$ELEPHANT_SKIPPED_TESTS" | sed 's/^/    skipped: /; s/\t/: /' >&2
cargo test --quiet --workspace --no-fail-fast --doc || failed=1
[ $failed -eq 0 ] || die "some tests failed: see above"
