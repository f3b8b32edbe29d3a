{{ config(by='teacher', group='completions', portioned_by='sample_rank') }}

-- Drops a completion that begins by repeating a stretch of what it was given, the failure of Claude teachers that the
-- paper's system prompt is for (section 3): trained on, it teaches a model to copy. Example: "… the council voted on
-- Tuesday to close the footbridge at night" + "the council voted on Tuesday to close the footbridge at night. It …".

with

completions as (
    select * from {{ ref('completions') }}
),

final as (
    select
        teacher,
        document_id,
        sample_rank,
        'prompt_echo' as filter,
        'begins with a stretch of the first half' as reason,
        completion
    from completions
    where status in ('ok', 'truncated')
        and echoes_prompt
    order by sample_rank
)

select * from final
