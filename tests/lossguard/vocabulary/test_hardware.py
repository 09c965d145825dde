"""Errors in words."""

from lossguard.vocabulary.hardware import MAX_ERRORS, describe_errors, num_errors


def test_a_broken_counter_counts_a_number_that_can_be_stored() -> None:
    assert num_errors({"ecc_errors": 2.0**64, "xid_errors": -1e300}) == MAX_ERRORS


def test_errors_are_described_with_their_number_and_code() -> None:
    values = {"power": 650.0, "ecc_errors": 2.0, "xid_errors": 1.0, "xid_code": 79.0}
    assert num_errors(values) == 3
    assert describe_errors(values) == "2 ECC errors, XID error 79"
    assert describe_errors({"power": 650.0, "ecc_errors": 0.0}) == ""
