{{ config(by='teacher', group='completions') }}

-- Section 6 of the paper: a completion that begins with a capital where the original did not is a new thought (a
-- summary, a guess at what is wanted), not a continuation. About 7k of the 80k; only the 73k ablation leaves them out.
-- The class before \p{Lu} is Unicode white space: RE2's own \s is that of ASCII.

with

completions as (
    select * from {{ ref('completions') }}
),

halves as (
    select * from {{ ref('halves') }}
),

final as (
    select
        completions.teacher,
        completions.document_id,
        completions.sample_rank,
        completions.completion,
        halves.second_half
    from completions
    inner join halves using (document_id)
    where completions.status = 'ok'
        and regexp_matches(completions.completion, '^[\x09-\x0D\x1C-\x20\x85\p{Z}]*\p{Lu}')
        and not regexp_matches(halves.second_half, '^[\x09-\x0D\x1C-\x20\x85\p{Z}]*\p{Lu}')
    order by completions.sample_rank
)

select * from final
