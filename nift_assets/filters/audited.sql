{{ config(by='teacher', group='completions', portioned_by='sample_rank') }}

-- Drops a document that an auditor took for instruction data or found a dialogue in (section 6 of the paper, Table 9).
-- Only what was audited can be flagged, and an answer that is neither yes nor no flags nothing. Example: an interview,
-- or a list of questions with their answers.

with

completions as (
    select * from {{ ref('completions') }}
),

content_audit as (
    select * from {{ ref('content_audit') }}
),

flagged as (
    select
        source,
        document_id,
        string_agg(question, ', ' order by question) as questions
    from content_audit
    where kind = 'teacher'
        and verdict = 'yes'
    group by all
),

final as (
    select
        completions.teacher,
        completions.document_id,
        completions.sample_rank,
        'audited' as filter,
        'the auditor says yes: ' || flagged.questions as reason,
        completions.completion
    from completions
    inner join flagged on completions.teacher = flagged.source and completions.document_id = flagged.document_id
    where completions.status in ('ok', 'truncated')
    order by completions.sample_rank
)

select * from final
