"""The nouns and the judgement: no input or output, no clock, no Prefect.

    CommandBlock + ExecutionProfileBlock + HPCProfileBlock + arguments
        → JobSpec → Script → Submission → Observation* → Verdict → JobResult

`spec` what is to run; `identity` which job this is; `script` what the machine runs; `folder` the
ledger's names and formats; `state` what was seen, and the one judge; `failure` the reasons;
`result` what a call returns; `retry` what another attempt gets.
"""
