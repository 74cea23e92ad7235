"""The simulated exchange: matching engine, order flow, wire servers."""
