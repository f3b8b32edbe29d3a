"""Asking by batch, at half the price: submitted, collected and read into the ledger's rows."""
