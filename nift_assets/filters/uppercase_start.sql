{{ config(by='teacher', group='completions', portioned_by='sample_rank') }}

-- Drops a completion that begins with a capital where the original did not: a new thought (a summary, a guess at what
-- is wanted), not a continuation. Example: "… the ferry left" + "Sure! Here is how it could go on", where the author
-- wrote " without its horn". Section 6 of the paper drops about 7k of the 80k, for the 73k ablation alone.
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
        'uppercase_start' as filter,
        'begins with a capital where the original does not' as reason,
        completions.completion,
        halves.second_half
    from completions
    inner join halves using (document_id)
    where completions.status in ('ok', 'truncated')
        and regexp_matches(completions.completion, '^[\x09-\x0D\x1C-\x20\x85\p{Z}]*\p{Lu}')
        and not regexp_matches(halves.second_half, '^[\x09-\x0D\x1C-\x20\x85\p{Z}]*\p{Lu}')
    order by completions.sample_rank
)

select * from final
